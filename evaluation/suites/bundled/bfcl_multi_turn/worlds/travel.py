"""A travel agency: flights, what they cost, and the cards that pay."""

import random
from copy import deepcopy
from datetime import datetime

from evaluation.suites.bundled.bfcl_multi_turn.worlds.fares import CLASSES, date_in, fare
from evaluation.suites.bundled.bfcl_multi_turn.worlds.places import AIRPORT_OF, AIRPORTS
from evaluation.suites.bundled.bfcl_multi_turn.worlds.told import Told

# Where ages are reckoned, so that nothing depends on the day of the run.
_TODAY = datetime(2024, 9, 1)
_A_DOLLAR = {
    "RMB": 7,
    "EUR": 0.8,
    "JPY": 110,
    "GBP": 0.7,
    "CAD": 1.3,
    "AUD": 1.4,
    "INR": 70,
    "RUB": 60,
    "BRL": 3.8,
    "MXN": 20,
}


class TravelAPI:
    """A traveller's cards and bookings; `costs` of the state are what routes cost, by `FROM-TO`."""

    def __init__(self, state: Told) -> None:
        self.credit_card_list: dict[str, Told] = state["credit_card_list"]
        self.booking_record: dict[str, Told] = state["booking_record"]
        self.access_token: str | None = state["access_token"]
        self.token_type: str | None = state["token_type"]
        self.token_expires_in: int | None = state["token_expires_in"]
        self.token_scope: str | None = state["token_scope"]
        self.user_first_name: str | None = state["user_first_name"]
        self.user_last_name: str | None = state["user_last_name"]
        self.budget_limit: float | None = state["budget_limit"]
        self._random = random.Random(state["random_seed"])
        self._costs: dict[str, int] = state["costs"]
        self._long: bool = state.get("long", False)

    def authenticate_travel(
        self,
        client_id: str,  # noqa: ARG002  (any will do)
        client_secret: str,  # noqa: ARG002
        refresh_token: str,  # noqa: ARG002
        grant_type: str,
        user_first_name: str,
        user_last_name: str,
    ) -> Told:
        self.token_expires_in = 2
        self.access_token = str(self._random.randint(100000, 999999))
        self.token_type = "Bearer"
        self.token_scope = grant_type
        self.user_first_name, self.user_last_name = user_first_name, user_last_name
        return {"expires_in": 2, "access_token": self.access_token, "token_type": "Bearer", "scope": grant_type}

    def travel_get_login_status(self) -> Told:
        return {"status": self.token_expires_in not in (None, 0)}

    def get_budget_fiscal_year(
        self,
        lastModifiedAfter: str | None = None,  # noqa: ARG002  (all years are the same)
        includeRemoved: str | None = None,  # noqa: ARG002
    ) -> Told:
        return {"budget_fiscal_year": "2018"}

    def register_credit_card(
        self,
        access_token: str,
        card_number: str,
        expiration_date: str,
        cardholder_name: str,
        card_verification_number: int,
    ) -> Told:
        if self.token_expires_in is None:
            return {"error": "Token not initialized"}
        if refused := self._refusal(access_token):
            return refused
        if card_number in self.credit_card_list:
            return {"error": "Card already registered"}
        card_id = str(self._random.randint(100000000000, 999999999999))
        self.credit_card_list[card_id] = {
            "card_number": card_number,
            "expiration_date": expiration_date,
            "cardholder_name": cardholder_name,
            "card_verification_number": card_verification_number,
            "balance": self._random.randint(10000, 99999),
        }
        return {"card_id": card_id}

    def get_flight_cost(self, travel_from: str, travel_to: str, travel_date: str, travel_class: str) -> Told:
        asked = fare(self._costs, travel_from, travel_to, travel_date, travel_class)
        if not self._long:
            return {"travel_cost_list": [asked]}
        routes = [route.split("-") for route in self._costs]
        every = [fare(self._costs, start, end, travel_date, travel_class) for start, end in routes]
        return {"travel_cost_list": every}

    def get_credit_card_balance(self, access_token: str, card_id: str) -> Told:
        if refused := self._refusal(access_token):
            return refused
        if card_id not in self.credit_card_list:
            known = list(self.credit_card_list)
            return {"error": f"Card not registered. Here are a list of card_id's: {known}"}
        return {"card_balance": self.credit_card_list[card_id]["balance"]}

    def book_flight(
        self, access_token: str, card_id: str, travel_date: str, travel_from: str, travel_to: str, travel_class: str
    ) -> Told:
        try:
            cost = self._payable(access_token, card_id, travel_date, travel_from, travel_to, travel_class)
        except _RefusedError as refused:
            return {"booking_status": False, "error": str(refused)}
        self.credit_card_list[card_id]["balance"] -= cost
        booking_id = str(self._random.randint(1000000, 9999999))
        transaction_id = str(self._random.randint(10000000, 99999999))
        self.booking_record[booking_id] = {
            "card_id": card_id,
            "travel_date": travel_date,
            "travel_from": travel_from,
            "travel_to": travel_to,
            "travel_class": travel_class,
            "travel_cost": cost,
            "transaction_id": transaction_id,
        }
        return {
            "booking_id": booking_id,
            "transaction_id": transaction_id,
            "booking_status": True,
            "booking_history": self.booking_record if self._long else {},
        }

    def retrieve_invoice(
        self,
        access_token: str,
        booking_id: str | None = None,
        insurance_id: str | None = None,  # noqa: ARG002  (bookings alone have invoices)
    ) -> Told:
        if refused := self._refusal(access_token):
            return refused
        if booking_id not in self.booking_record:
            return {"error": "Booking not found"}
        kept = self.booking_record[booking_id]
        shown = ("travel_date", "travel_from", "travel_to", "travel_class", "travel_cost", "transaction_id")
        return {"invoice": {"booking_id": booking_id, **{key: kept[key] for key in shown}}}

    def get_booking_history(self, access_token: str) -> Told:
        return self._refusal(access_token) or {"booking_history": deepcopy(self.booking_record)}

    def list_all_airports(self) -> list[str]:
        return AIRPORTS

    def cancel_booking(self, access_token: str, booking_id: str) -> Told:
        refused = self._refusal(access_token)
        if refused is None and booking_id not in self.booking_record:
            refused = {"error": "Booking not found"}
        if refused is not None:
            return {"cancel_status": False, **refused}
        booking = self.booking_record[booking_id]
        self.credit_card_list[booking["card_id"]]["balance"] += booking["travel_cost"]
        del self.booking_record[booking_id]
        return {"cancel_status": True}

    def compute_exchange_rate(self, base_currency: str, target_currency: str, value: float) -> Told:
        if base_currency == "USD" and target_currency in _A_DOLLAR:
            return {"exchanged_value": float(value * _A_DOLLAR[target_currency])}
        if target_currency == "USD" and base_currency in _A_DOLLAR:
            return {"exchanged_value": round(value / _A_DOLLAR[base_currency], 2)}
        raise ValueError("No available exchange rate for the given currencies.")

    def verify_traveler_information(
        self, first_name: str, last_name: str, date_of_birth: str, passport_number: str
    ) -> Told:
        reason = ""
        if (self.user_first_name, self.user_last_name) != (first_name, last_name):
            own = f"{self.user_first_name} {self.user_last_name}"
            reason = f"Cannot book flight information for another user.Expected {own}, got {first_name} {last_name}"
        elif (age := _age(date_of_birth)) is None:
            reason = "Invalid date of birth format. Please use YYYY-MM-DD."
        elif age < 18:
            reason = "Traveler must be at least 18 years old."
        elif not passport_number.startswith("US"):
            reason = "Passport must be issued by the United States."
        if reason:
            return {"verification_status": False, "verification_failure": reason}
        return {"verification_status": True}

    def set_budget_limit(self, access_token: str, budget_limit: float) -> Told:
        if refused := self._refusal(access_token):
            return refused
        self.budget_limit = float(budget_limit)
        return {"budget_limit": self.budget_limit}

    def get_nearest_airport_by_city(self, location: str) -> Told:
        return {"nearest_airport": AIRPORT_OF.get(location, "Unknown")}

    def purchase_insurance(
        self,
        access_token: str,
        insurance_type: str,  # noqa: ARG002  (all are the same)
        booking_id: str,
        insurance_cost: float,
        card_id: str,
    ) -> Told:
        refused = self._refusal(access_token)
        if refused is None and self.budget_limit is not None and self.budget_limit < insurance_cost:
            refused = {"error": "Exceeded budget limit"}
        if refused is None and booking_id not in self.booking_record:
            refused = {"error": "Booking not found"}
        if refused is None and card_id not in self.credit_card_list:
            refused = {"error": "Credit card not registered"}
        if refused is not None:
            return {"insurance_status": False, **refused}
        self.credit_card_list[card_id]["balance"] -= insurance_cost
        return {"insurance_id": str(self._random.randint(100000000, 999999999)), "insurance_status": True}

    def contact_customer_support(self, booking_id: str, message: str) -> Told:  # noqa: ARG002  (nobody reads it)
        if booking_id not in self.booking_record:
            return {"error": "Booking not found"}
        thanks = "Thank you for contacting customer support."
        return {
            "customer_support_message": f"{thanks} Your message has been received and we will get back to you shortly."
        }

    def get_all_credit_cards(self) -> Told:
        return {"credit_card_list": self.credit_card_list}

    def _refusal(self, access_token: str) -> Told | None:
        if self.token_expires_in == 0:
            return {"error": "Token expired"}
        return None if access_token == self.access_token else {"error": "Invalid access token"}

    def _payable(self, access_token: str, card_id: str, date: str, start: str, end: str, travel_class: str) -> float:
        """Return what a flight costs; _RefusedError if it cannot be booked."""
        if refused := self._refusal(access_token):
            raise _RefusedError(refused["error"])
        if card_id not in self.credit_card_list:
            raise _RefusedError("Card not registered")
        if "balance" not in self.credit_card_list[card_id]:
            raise _RefusedError("Balance not found")
        for name, airport in (("departure", start), ("destination", end)):
            if airport not in AIRPORTS:
                raise _RefusedError(f"Invalid {name} airport code: {airport}")
        if date_in(date) is None:
            raise _RefusedError("Invalid date format. Use YYYY-MM-DD.")
        if travel_class not in CLASSES:
            raise _RefusedError(f"Invalid travel class. Must be one of {', '.join(CLASSES)}")
        try:
            cost = fare(self._costs, start, end, date, travel_class)
        except ValueError as error:
            raise _RefusedError(str(error)) from error
        balance = self.credit_card_list[card_id]["balance"]
        if balance < cost:
            raise _RefusedError("Insufficient funds")
        if self.budget_limit is not None and balance < self.budget_limit:
            raise _RefusedError("Balance is less than budget limit")
        return cost


class _RefusedError(Exception):
    """A flight cannot be booked."""


def _age(date_of_birth: str) -> int | None:
    born = date_in(date_of_birth)
    if born is None:
        return None
    return _TODAY.year - born.year - ((_TODAY.month, _TODAY.day) < (born.month, born.day))
