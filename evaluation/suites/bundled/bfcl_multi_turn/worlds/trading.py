"""A broker: stocks, orders, and the money of one account."""

import random
from datetime import datetime, timedelta
from typing import Any

from evaluation.suites.bundled.bfcl_multi_turn.worlds.told import Told

_NOW = datetime(2024, 9, 1, 10, 30)
_DAY = 24 * 60 * 60
_SYMBOLS = {
    "Apple": "AAPL",
    "Google": "GOOG",
    "Tesla": "TSLA",
    "Microsoft": "MSFT",
    "Nvidia": "NVDA",
    "Zeta Corp": "ZETA",
    "Alpha Tech": "ALPH",
    "Omega Industries": "OMEG",
    "Quasar Ltd.": "QUAS",
    "Neptune Systems": "NEPT",
    "Synex Solutions": "SYNX",
    "Amazon": "AMZN",
    "Gorilla": "GORI",
}
_SECTORS = {"Technology": ["AAPL", "GOOG", "MSFT", "NVDA"], "Automobile": ["TSLA", "F", "GM"]}


class TradingBot:
    """An account whose owner may be logged in."""

    def __init__(self, state: Told) -> None:
        self.orders: dict[Any, Told] = {_number(key): order for key, order in state["orders"].items()}
        self.account_info: Told = state["account_info"]
        self.authenticated: bool = state["authenticated"]
        self.market_status: str = state["market_status"]
        self.order_counter: int = state["order_counter"]
        self.stocks: dict[str, Told] = state["stocks"]
        self.watch_list: list[str] = state["watch_list"]
        self.transaction_history: list[Told] = state["transaction_history"]
        self._random = random.Random(state["random_seed"])
        self._long: Told = state.get("long", {})

    def get_current_time(self) -> Told:
        return {"current_time": _NOW.strftime("%I:%M %p")}

    def get_symbol_by_name(self, name: str) -> Told:
        return {"symbol": _SYMBOLS.get(name, "Stock not found")}

    def get_stock_info(self, symbol: str) -> Told:
        if symbol not in self.stocks:
            return {"error": f"Stock with symbol '{symbol}' not found."}
        return {**self.stocks[symbol], **self._long.get("averages", {})}

    def get_order_details(self, order_id: int) -> Told:
        if order_id not in self.orders:
            known = list(self.orders)
            return {"error": f"Order with ID {order_id} not found.Here is the list of orders_id: {known}"}
        order = self.orders[order_id]
        if not self._long:
            return order
        more = {key: text.format(symbol=order["symbol"]) for key, text in self._long["order"].items()}
        return {**order, "metadata": more}

    def cancel_order(self, order_id: int) -> Told:
        if order_id not in self.orders:
            return {"error": f"Order with ID {order_id} not found."}
        if self.orders[order_id]["status"] == "Completed":
            return {"error": f"Can't cancel order {order_id}. Order is already completed."}
        self.orders[order_id]["status"] = "Cancelled"
        return {"order_id": order_id, "status": "Cancelled"}

    def place_order(self, order_type: str, symbol: str, price: float, amount: int) -> Told:
        if not self.authenticated:
            return _refusal("place an order")
        if symbol not in self.stocks:
            return {"error": f"Invalid stock symbol: {symbol}"}
        if price <= 0 or amount <= 0:
            return {"error": "Price and amount must be positive values."}
        balance = self.account_info.get("balance", 0)
        cost = float(price) * int(amount) if order_type.lower() == "buy" else 0.0
        if cost > balance:
            return {"error": f"Insufficient funds: required ${cost:.2f} but only ${balance:.2f} available."}
        order_id = self.order_counter
        asked = {"order_type": order_type, "symbol": symbol, "price": float(price), "amount": amount}
        self.orders[order_id] = {"id": order_id, **asked, "status": "Open"}
        self.order_counter += 1
        return {
            "order_id": order_id,
            "order_type": order_type,
            "status": "Pending",
            "price": float(price),
            "amount": amount,
        }

    def withdraw_funds(self, amount: float) -> Told:
        if not self.authenticated:
            return _refusal("make a transaction")
        if self.market_status != "Open":
            return {"error": "Market is closed. Transactions are not allowed."}
        if amount <= 0:
            return {"error": "Transaction amount must be positive."}
        if amount > self.account_info["balance"]:
            return {"error": "Insufficient funds for withdrawal."}
        self._book("withdrawal", amount, -amount)
        return {"status": "Withdrawal successful", "new_balance": self.account_info["balance"]}

    def fund_account(self, amount: float) -> Told:
        if not self.authenticated:
            return _refusal("fund the account")
        if amount <= 0:
            return {"error": "Funding amount must be positive."}
        self._book("deposit", amount, amount)
        return {"status": "Account funded successfully", "new_balance": self.account_info["balance"]}

    def get_account_info(self) -> Told:
        return self.account_info if self.authenticated else _refusal("view account information")

    def trading_login(self, username: str, password: str) -> Told:  # noqa: ARG002  (any will do)
        if self.authenticated:
            return {"status": "Already logged in"}
        self.authenticated = True
        return {"status": "Logged in successfully"}

    def trading_get_login_status(self) -> Told:
        return {"status": bool(self.authenticated)}

    def trading_logout(self) -> Told:
        if not self.authenticated:
            return {"status": "No user is currently logged in"}
        self.authenticated = False
        return {"status": "Logged out successfully"}

    def remove_stock_from_watchlist(self, symbol: str) -> Told:
        if not self.authenticated:
            return _refusal("modify the watchlist")
        if symbol not in self.watch_list:
            return {"error": f"Stock {symbol} not found in watchlist."}
        self.watch_list.remove(symbol)
        return {"status": f"Stock {symbol} removed from watchlist successfully."}

    def get_watchlist(self) -> Told | list[Any]:
        if not self.authenticated:
            return ["Error: User not authenticated. Please log in to view the watchlist."]
        if self._long:
            return [*self.watch_list, *self._long["watched"], ...]  # BFCL's list ends so
        return {"watchlist": self.watch_list}

    def add_to_watchlist(self, stock: str) -> Told:
        if stock not in self.watch_list and stock in self.stocks:
            self.watch_list.append(stock)
        return {"watchlist": self.watch_list}

    def get_order_history(self) -> Told | list[Told]:
        return {"history": list(self.orders)} if self.authenticated else [_refusal("view order history")]

    def get_transaction_history(self, start_date: str | None = None, end_date: str | None = None) -> Told | list[Told]:
        if not self.authenticated:
            return [_refusal("view transaction history")]
        start = datetime.strptime(start_date, "%Y-%m-%d") if start_date else datetime.min
        end = datetime.strptime(end_date, "%Y-%m-%d") if end_date else datetime.max
        within = [
            transaction
            for transaction in self.transaction_history
            if start <= datetime.strptime(transaction["timestamp"], "%Y-%m-%d %H:%M:%S") <= end
        ]
        return {"transaction_history": [*within, *self._long.get("transactions", ())]}

    def get_available_stocks(self, sector: str) -> Told:
        return {"stock_list": [*_SECTORS.get(sector, ()), *self._long.get("stocks", {}).get(sector, ())]}

    def filter_stocks_by_price(self, stocks: list[str], min_price: float, max_price: float) -> Told:
        prices = {symbol: self.stocks.get(symbol, {}).get("price", 0) for symbol in stocks}
        return {"filtered_stocks": [symbol for symbol in stocks if min_price <= prices[symbol] <= max_price]}

    def notify_price_change(self, stocks: list[str], threshold: float) -> Told:
        changed = [
            symbol
            for symbol in stocks
            if symbol in self.stocks and abs(self.stocks[symbol]["percent_change"]) >= threshold
        ]
        if not changed:
            return {"notification": "No significant price changes in the selected stocks."}
        return {"notification": f"Stocks {', '.join(changed)} have significant price changes."}

    def _book(self, kind: str, amount: float, change: float) -> None:
        self.account_info["balance"] += change
        time = _NOW + timedelta(seconds=self._random.randint(0, _DAY))
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        self.transaction_history.append({"type": kind, "amount": amount, "timestamp": stamp})


def _number(key: str) -> int | str:
    return int(key) if key.isdigit() else key


def _refusal(doing: str) -> Told:
    return {"error": f"User not authenticated. Please log in to {doing}."}
