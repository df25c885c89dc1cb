"""Tickets of a support desk."""

from evaluation.suites.bundled.bfcl_multi_turn.worlds.told import Told

_FIELDS = ("title", "description", "status", "priority")


class TicketAPI:
    """A queue of tickets, and the user who is logged in."""

    def __init__(self, state: Told) -> None:
        self.ticket_queue: list[Told] = state["ticket_queue"]
        self.ticket_counter: int = state["ticket_counter"]
        self.current_user: str | None = state["current_user"]

    def create_ticket(self, title: str, description: str = "", priority: int = 1) -> Told:
        if not self.current_user:
            return {"error": "User not authenticated. Please log in to create a ticket."}
        if priority < 1 or priority > 5:
            return {"error": "Invalid priority. Priority must be between 1 and 5."}
        ticket = {
            "id": self.ticket_counter,
            "title": title,
            "description": description,
            "status": "Open",
            "priority": priority,
            "created_by": self.current_user,
        }
        self.ticket_queue.append(ticket)
        self.ticket_counter += 1
        return ticket

    def get_ticket(self, ticket_id: int) -> Told:
        return self._find(ticket_id) or _missing(ticket_id)

    def close_ticket(self, ticket_id: int) -> Told:
        ticket = self._find(ticket_id)
        if not ticket:
            return _missing(ticket_id)
        if ticket["status"] == "Closed":
            return {"error": f"Ticket with ID {ticket_id} is already closed."}
        ticket["status"] = "Closed"
        return {"status": f"Ticket {ticket_id} has been closed successfully."}

    def resolve_ticket(self, ticket_id: int, resolution: str) -> Told:
        ticket = self._find(ticket_id)
        if not ticket:
            return _missing(ticket_id)
        if ticket["status"] == "Resolved":
            return {"error": f"Ticket with ID {ticket_id} is already resolved."}
        ticket |= {"status": "Resolved", "resolution": resolution}
        return {"status": f"Ticket {ticket_id} has been resolved successfully."}

    def edit_ticket(self, ticket_id: int, updates: Told) -> Told:
        ticket = self._find(ticket_id)
        if not ticket:
            return _missing(ticket_id)
        if unknown := [key for key in updates if key not in _FIELDS]:
            return {"error": f"Invalid fields for update: {', '.join(unknown)}"}
        ticket |= {key: value for key, value in updates.items() if value is not None}
        return {"status": f"Ticket {ticket_id} has been updated successfully."}

    def ticket_login(self, username: str, password: str) -> Told:
        if not (username and password):
            return {"success": False}
        self.current_user = username
        return {"success": True}

    def ticket_get_login_status(self) -> Told:
        return {"login_status": bool(self.current_user)}

    def logout(self) -> Told:
        before, self.current_user = self.current_user, None
        return {"success": bool(before)}

    def get_user_tickets(self, status: str | None = None) -> list[Told]:
        if not self.current_user:
            return [{"error": "User not authenticated. Please log in to view tickets."}]
        own = [ticket for ticket in self.ticket_queue if ticket["created_by"] == self.current_user]
        return [ticket for ticket in own if not status or ticket["status"].lower() == status.lower()]

    def _find(self, ticket_id: int) -> Told | None:
        return next((ticket for ticket in self.ticket_queue if ticket["id"] == ticket_id), None)


def _missing(ticket_id: int) -> Told:
    return {"error": f"Ticket with ID {ticket_id} not found."}
