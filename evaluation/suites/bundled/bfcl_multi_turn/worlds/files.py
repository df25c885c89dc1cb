"""A file system in memory, in which one is always in one directory."""

from evaluation.suites.bundled.bfcl_multi_turn.worlds.told import Told
from evaluation.suites.bundled.bfcl_multi_turn.worlds.tree import (
    Directory,
    Entry,
    File,
    add,
    below,
    read_directory,
    size_of,
)

_UNITS = ("B", "KB", "MB", "GB", "TB")
_DOING = {"mv": ("move", "moved"), "cp": ("copy", "copied")}
_NOT_IN_NAMES = '|/\\?%*:"><'


class GorillaFileSystem:
    """Functions named like the commands of a shell."""

    def __init__(self, state: Told) -> None:
        name, top = next(iter((state["root"] or {"/": {"contents": {}}}).items()))
        self.root = read_directory(name, None, top["contents"])
        self._here = self.root

    def pwd(self) -> Told:
        names: list[str] = []
        place: Directory | None = self._here
        while place is not None:
            names.insert(0, place.name)
            place = place.parent
        return {"current_working_directory": "/" + "/".join(names)}

    def ls(self, a: bool = False) -> Told:
        return {"current_directory_content": [name for name in self._here.contents if a or not name.startswith(".")]}

    def cd(self, folder: str) -> Told:
        folder = folder.rstrip("/") or "/"
        if folder not in (".", "..", "/") and "/" in folder:
            return _error(f"cd: {folder}: Unsupported path. Only one folder level at a time is supported.")
        if folder == "..":
            if self._here.parent is None:
                return _error("Current directory is already the root. Cannot go back.")
            self._here = self._here.parent
            return {}
        found = self._at(folder)
        if found is None:
            return _error(f"cd: '{folder}': No such file or directory")
        self._here = found
        return {"current_working_directory": found.name}

    def mkdir(self, dir_name: str) -> Told | None:
        return self._make(f"mkdir: cannot create directory '{dir_name}'", Directory(dir_name, self._here))

    def touch(self, file_name: str) -> Told | None:
        return self._make(f"touch: cannot touch '{file_name}'", File(file_name))

    def echo(self, content: str, file_name: str | None = None) -> Told | None:
        if file_name is None:
            return {"terminal_output": content}
        where = f"echo: cannot write to '{file_name}'"
        if not _is_name(file_name):
            return _error(f"{where}: Invalid character")
        if not file_name:
            return {"terminal_output": content}
        if file_name not in self._here.contents:
            return _error(f"{where}: No such file")
        found = self._here.contents[file_name]
        if not isinstance(found, File):
            raise TypeError("'Directory' object has no attribute '_write'")
        found.content = content
        return None

    def cat(self, file_name: str) -> Told:
        if not _is_name(file_name):
            return _error(f"cat: '{file_name}': Invalid character")
        match self._here.contents.get(file_name):
            case File(content=content):
                return {"file_content": content}
            case Directory():
                return _error(f"cat: '{file_name}': Is a directory")
        return _error(f"cat: '{file_name}': No such file or directory")

    def find(self, path: str = ".", name: str | None = None) -> Told:
        start = self._at(path)
        if start is None:
            return _error(f"find: '{path}': No such file or directory")
        everything = below(start, path.rstrip("/"))
        return {"matches": [place for place, entry in everything if name is None or name in entry]}

    def wc(self, file_name: str, mode: str = "l") -> Told:
        if mode not in ("l", "w", "c"):
            return _error(f"wc: invalid mode '{mode}'")
        content = self._content(file_name)
        if content is None:
            return _error(f"wc: {file_name}: No such file or directory")
        if mode == "l":
            return {"count": len(content.splitlines()), "type": "lines"}
        if mode == "w":
            return {"count": len(content.split()), "type": "words"}
        return {"count": len(content), "type": "characters"}

    def sort(self, file_name: str) -> Told:
        content = self._content(file_name)
        if content is None:
            return _error(f"sort: {file_name}: No such file or directory")
        return {"sorted_content": "\n".join(sorted(content.splitlines()))}

    def grep(self, file_name: str, pattern: str) -> Told:
        content = self._content(file_name)
        if content is None:
            return _error(f"grep: {file_name}: No such file or directory")
        return {"matching_lines": [line for line in content.splitlines() if pattern in line]}

    def du(self, human_readable: bool = False) -> Told:
        size: float = size_of(self._here)
        if not human_readable:
            return {"disk_usage": f"{size} bytes"}
        for unit in _UNITS:
            if size < 1024:
                return {"disk_usage": f"{size:.2f} {unit}"}
            size /= 1024
        return {"disk_usage": f"{size:.2f} PB"}

    def tail(self, file_name: str, lines: int = 10) -> Told:
        content = self._content(file_name)
        if content is None:
            return _error(f"tail: {file_name}: No such file or directory")
        every = content.splitlines()
        return {"last_lines": "\n".join(every[-min(lines, len(every)) :])}

    def diff(self, file_name1: str, file_name2: str) -> Told:
        one, other = self._content(file_name1), self._content(file_name2)
        if one is None or other is None:
            return _error(f"diff: {file_name1} or {file_name2}: No such file or directory")
        pairs = zip(one.splitlines(), other.splitlines(), strict=False)
        return {"diff_lines": "\n".join(f"- {line}\n+ {changed}" for line, changed in pairs if line != changed)}

    def mv(self, source: str, destination: str) -> Told:
        entry = self._here.contents.get(source)
        if entry is None:
            return _error(f"mv: cannot move '{source}': No such file or directory")
        told = self._place("mv", entry, source, destination)
        if "error" not in told:
            del self._here.contents[source]
        return told

    def rm(self, file_name: str) -> Told:
        if self._here.contents.pop(file_name, None) is None:
            return _error(f"rm: cannot remove '{file_name}': No such file or directory")
        return {"result": f"'{file_name}' removed"}

    def rmdir(self, dir_name: str) -> Told:
        where = f"rmdir: cannot remove '{dir_name}'"
        match self._here.contents.get(dir_name):
            case None:
                return _error(f"{where}: No such file or directory")
            case Directory(contents=contents) if not contents:
                del self._here.contents[dir_name]
                return {"result": f"'{dir_name}' removed"}
            case Directory():
                return _error(f"{where}: Directory not empty")
        return _error(f"{where}: Not a directory")

    def cp(self, source: str, destination: str) -> Told:
        entry = self._here.contents.get(source)
        if entry is None:
            return _error(f"cp: cannot copy '{source}': No such file or directory")
        if isinstance(entry, Directory):  # what lies in it stays the same, and is no copy
            entry = Directory(source, None, dict(entry.contents))
        return self._place("cp", entry, source, destination)

    def _place(self, command: str, entry: Entry, source: str, destination: str) -> Told:
        """Put an entry where a command says, and return what it tells."""
        attempt, done = _DOING[command]
        if "/" in destination:
            return _error(f"{command}: path not allowed in destination. Provide only a file or directory name.")
        found = self._here.contents.get(destination)
        if found is None:
            add(self._here, destination, entry)
            return {"result": f"'{source}' {done} to '{destination}'"}
        # A directory in itself would have no end.
        if not isinstance(found, Directory) or source == destination:
            return _error(f"{command}: cannot {attempt} '{source}' to '{destination}': Not a directory")
        if source in found.contents:
            if command == "cp":
                kind = type(entry).__name__
                raise ValueError(f"{kind} '{source}' already exists in directory '{found.name}'.")
            return _error(f"mv: cannot move '{source}' to '{destination}/{source}': File exists")
        add(found, source, entry)
        return {"result": f"'{source}' {done} to '{destination}/{source}'"}

    def _make(self, where: str, entry: Entry) -> Told | None:
        if not _is_name(entry.name):
            return _error(f"{where}: Invalid character")
        if entry.name in self._here.contents:
            return _error(f"{where}: File exists")
        self._here.contents[entry.name] = entry
        return None

    def _content(self, file_name: str) -> str | None:
        found = self._here.contents.get(file_name)
        return found.content if isinstance(found, File) else None

    def _at(self, path: str) -> Directory | None:
        """Return the directory at a path, or None if there is none."""
        place = self.root if path.startswith("/") else self._here
        for name in path.strip("/").split("/") if path not in (".", "/") else []:
            found = place if name == "." else place.contents.get(name)
            if not isinstance(found, Directory):
                return None
            place = found
        return place


def _error(sentence: str) -> Told:
    return {"error": sentence}


def _is_name(name: str) -> bool:
    return not any(character in name for character in _NOT_IN_NAMES)
