"""Messages between the members of a workspace."""

import random

from evaluation.suites.bundled.bfcl_multi_turn.worlds.told import Told

_LOGGED_OUT = "No user is currently logged in."


class MessageAPI:
    """One user at a time is logged in, and writes to others."""

    def __init__(self, state: Told) -> None:
        self.generated_ids: set[int] = set(state["generated_ids"])
        self.user_count: int = state["user_count"]
        self.user_map: dict[str, str] = state["user_map"]
        self.inbox: list[dict[str, str]] = state["inbox"]
        self.message_count: int = state["message_count"]
        self.current_user: str | None = state["current_user"]
        self._random = random.Random(state.get("random_seed", 200191))

    def list_users(self) -> Told:
        return {"user_list": list(self.user_map)}

    def get_user_id(self, user: str) -> Told:
        if user not in self.user_map:
            return {"error": f"User '{user}' not found in the workspace."}
        return {"user_id": self.user_map[user]}

    def message_login(self, user_id: str) -> Told:
        if user_id not in self.user_map.values():
            return {"login_status": False, "message": f"User ID '{user_id}' not found."}
        self.current_user = user_id
        return {"login_status": True, "message": f"User '{user_id}' logged in successfully."}

    def message_get_login_status(self) -> Told:
        return {"login_status": bool(self.current_user)}

    def send_message(self, receiver_id: str, message: str) -> Told:
        if not self.current_user:
            return {"error": _LOGGED_OUT}
        if receiver_id not in self.user_map.values():
            return {"error": f"Receiver ID '{receiver_id}' not found."}
        number = self._new_id()
        self.inbox.append({receiver_id: message})
        self.message_count += 1
        return {
            "sent_status": True,
            "message_id": {"new_id": number},
            "message": f"Message sent to '{receiver_id}' successfully.",
        }

    def delete_message(self, receiver_id: str) -> Told:
        if not self.current_user:
            return {"error": _LOGGED_OUT}
        last = next((entry for entry in reversed(self.inbox) if next(iter(entry)) == receiver_id), None)
        if last is None:
            return {"error": f"Receiver ID {receiver_id} not found."}
        self.inbox.remove(last)
        return {
            "deleted_status": True,
            "receiver_id": receiver_id,
            "message": f"Receiver {receiver_id}'s latest message deleted successfully.",
        }

    def view_messages_sent(self) -> Told:
        if not self.current_user:
            return {"error": _LOGGED_OUT}
        sent: dict[str, list[str]] = {}
        for receiver, message in self._messages():
            sent.setdefault(receiver, []).append(message)
        return {"messages": sent}

    def add_contact(self, user_name: str) -> Told:
        if user_name in self.user_map:
            return {"error": f"User name '{user_name}' already exists."}
        self.user_count += 1
        user_id = f"USR{self.user_count:03d}"
        if user_id in self.user_map.values():
            return {"error": f"User ID '{user_id}' already exists."}
        self.user_map[user_name] = user_id
        return {"added_status": True, "user_id": user_id, "message": f"Contact '{user_name}' added successfully."}

    def search_messages(self, keyword: str) -> Told:
        if not self.current_user:
            return {"error": _LOGGED_OUT}
        found = [
            {"receiver_id": receiver, "message": message}
            for receiver, message in self._messages()
            if keyword.lower() in message.lower()
        ]
        return {"results": found}

    def get_message_stats(self) -> Told:
        if not self.current_user:
            return {"error": _LOGGED_OUT}
        contacts = {receiver for receiver, _ in self._messages()}
        return {"stats": {"received_count": len(self.inbox), "total_contacts": len(contacts)}}

    def _messages(self) -> list[tuple[str, str]]:
        return [next(iter(entry.items())) for entry in self.inbox]

    def _new_id(self) -> int:
        while (number := self._random.randint(10000, 99999)) in self.generated_ids:
            pass
        self.generated_ids.add(number)
        return number
