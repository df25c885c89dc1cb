"""A car."""

import random

from evaluation.suites.bundled.bfcl_multi_turn.worlds.places import DISTANCES, ZIP_CODES
from evaluation.suites.bundled.bfcl_multi_turn.worlds.told import Told

_MOST_FUEL = 50
_MILES_PER_GALLON = 20.0
_BRAKE_FORCE = 1000  # of the pedal that is fully pressed
_TIRES = ("frontLeftTirePressure", "frontRightTirePressure", "rearLeftTirePressure", "rearRightTirePressure")


class VehicleControlAPI:
    """Doors, engine, brakes, climate, lights and a navigator."""

    def __init__(self, state: Told) -> None:
        self._random = random.Random(state["random_seed"])
        self.fuelLevel: float = state["fuelLevel"]
        self.batteryVoltage: float = state["batteryVoltage"]
        self.engine_state: str = state["engineState"]
        self.doorStatus: dict[str, str] = state["doorStatus"]
        self.remainingUnlockedDoors = 4 - list(self.doorStatus.values()).count("locked")
        self.acTemperature: float = state["acTemperature"]
        self.fanSpeed: int = state["fanSpeed"]
        self.acMode: str = state["acMode"]
        self.humidityLevel: float = state["humidityLevel"]
        self.headLightStatus: str = state["headLightStatus"]
        self.parkingBrakeStatus: str = state["parkingBrakeStatus"]
        self._parking_brake_force: float = state["parkingBrakeForce"]
        self._slope_angle: float = state["slopeAngle"]
        self.brakePedalStatus: str = state["brakePedalStatus"]
        self._brake_pedal_force: float = state["brakePedalForce"]
        self.distanceToNextVehicle: float = state["distanceToNextVehicle"]
        self.cruiseStatus: str = state["cruiseStatus"]
        self.destination: str = state["destination"]
        self.tires: dict[str, float] = {name: state[name] for name in _TIRES}
        self._long: Told = state.get("long", {})

    def startEngine(self, ignitionMode: str) -> Told:
        if ignitionMode == "STOP":
            self.engine_state = "stopped"
        if self.remainingUnlockedDoors > 0:
            unlocked = ", ".join(door for door, status in self.doorStatus.items() if status == "unlocked")
            return _error(
                f"All doors must be locked before starting the engine. Here are the unlocked doors: {unlocked}"
            )
        if self.brakePedalStatus != "pressed":
            return _error("Brake pedal needs to be pressed when starting the engine.")
        if self._brake_pedal_force != _BRAKE_FORCE:
            return _error("Must press the brake fully before starting the engine.")
        if self.fuelLevel < 0:
            return _error("Fuel tank is empty.")
        if ignitionMode != "START":
            return _error("Invalid ignition mode.")
        self.engine_state = "running"
        return {"engineState": "running", "fuelLevel": self.fuelLevel, "batteryVoltage": self.batteryVoltage}

    def fillFuelTank(self, fuelAmount: float) -> Told:
        if fuelAmount < 0:
            return _error("Fuel amount cannot be negative.")
        if self.fuelLevel + fuelAmount > _MOST_FUEL:
            return _error("Cannot fill gas above the tank capacity.")
        if self.fuelLevel + fuelAmount < 0:
            return _error("Fuel tank is empty. Min fuel level is 0 gallons.")
        self.fuelLevel += fuelAmount
        return {"fuelLevel": self.fuelLevel}

    def lockDoors(self, unlock: bool, door: list[str]) -> Told:
        status = "unlocked" if unlock else "locked"
        for name in door:
            if self.doorStatus[name] != status:
                self.doorStatus[name] = status
                self.remainingUnlockedDoors += 1 if unlock else -1
        return {"lockStatus": status, "remainingUnlockedDoors": self.remainingUnlockedDoors}

    def adjustClimateControl(
        self, temperature: float, unit: str = "celsius", fanSpeed: int = 50, mode: str = "auto"
    ) -> Told:
        if not 0 <= fanSpeed <= 100:
            return _error("Fan speed must be between 0 and 100.")
        self.acTemperature = (temperature - 32) * 5 / 9 if unit == "fahrenheit" else temperature
        self.fanSpeed, self.acMode = fanSpeed, mode
        return {"currentACTemperature": temperature, "climateMode": mode, "humidityLevel": self.humidityLevel}

    def get_outside_temperature_from_google(self) -> Told:
        return {**self._long.get("weather", {}), "outsideTemperature": self._random.uniform(-10.0, 40.0)}

    def get_outside_temperature_from_weather_com(self) -> Told:
        return {"error": 404}

    def setHeadlights(self, mode: str) -> Told:
        if mode not in ("on", "off", "auto"):
            return _error("Invalid headlight mode.")
        self.headLightStatus = "on" if mode == "on" else "off"
        return {"headlightStatus": self.headLightStatus}

    def displayCarStatus(self, option: str) -> Told:
        shown: dict[str, Told] = {
            "fuel": {"fuelLevel": self.fuelLevel},
            "battery": {"batteryVoltage": self.batteryVoltage},
            "doors": {"doorStatus": self.doorStatus},
            "climate": {
                "currentACTemperature": self.acTemperature,
                "fanSpeed": self.fanSpeed,
                "climateMode": self.acMode,
                "humidityLevel": self.humidityLevel,
            },
            "headlights": {"headlightStatus": self.headLightStatus},
            "parkingBrake": {
                "parkingBrakeStatus": self.parkingBrakeStatus,
                "parkingBrakeForce": self._parking_brake_force,
                "slopeAngle": self._slope_angle,
            },
            "brakePedal": {"brakePedalStatus": self.brakePedalStatus, "brakePedalForce": self._brake_pedal_force},
            "engine": {"engineState": self.engine_state},
        }
        more = {"metadata": self._long["car"]} if self._long else {}
        return {**more, **shown.get(option, _error("Invalid option"))}

    def activateParkingBrake(self, mode: str) -> Told:
        if mode not in ("engage", "release"):
            return _error("Invalid mode")
        self.parkingBrakeStatus, self._parking_brake_force = {
            "engage": ("engaged", 500.0),
            "release": ("released", 0.0),
        }[mode]
        self._slope_angle = 10.0
        return {
            **self._long.get("brake", {}),
            "parkingBrakeStatus": self.parkingBrakeStatus,
            "_parkingBrakeForce": self._parking_brake_force,
            "_slopeAngle": self._slope_angle,
        }

    def pressBrakePedal(self, pedalPosition: float) -> Told:
        if not 0 <= pedalPosition <= 1:
            return _error("Pedal position must be between 0 and 1.")
        if pedalPosition == 0:
            return self.releaseBrakePedal()
        self.brakePedalStatus, self._brake_pedal_force = "pressed", pedalPosition * _BRAKE_FORCE
        return {"brakePedalStatus": "pressed", "brakePedalForce": float(self._brake_pedal_force)}

    def releaseBrakePedal(self) -> Told:
        self.brakePedalStatus, self._brake_pedal_force = "released", 0.0
        return {"brakePedalStatus": "released", "brakePedalForce": 0.0}

    def setCruiseControl(self, speed: float, activate: bool, distanceToNextVehicle: float) -> Told:
        distance, speed = float(distanceToNextVehicle), float(speed)
        if self.engine_state == "stopped":
            return _error("Start the engine before activating the cruise control.")
        self.distanceToNextVehicle = distance
        if activate and (speed < 0 or speed > 120 or speed % 5 != 0):
            return _error("Invalid speed")
        self.cruiseStatus = "active" if activate else "inactive"
        return {"cruiseStatus": self.cruiseStatus, "currentSpeed": speed, "distanceToNextVehicle": distance}

    def get_current_speed(self) -> Told:
        return {"currentSpeed": self._random.uniform(0.0, 120.0)}

    def display_log(self, messages: list[str]) -> Told:
        return {"log": messages}

    def estimate_drive_feasibility_by_mileage(self, distance: float) -> Told:
        return {"canDrive": not self.fuelLevel * _MILES_PER_GALLON < distance}

    def liter_to_gallon(self, liter: float) -> Told:
        return {"gallon": liter * 0.264172}

    def gallon_to_liter(self, gallon: float) -> Told:
        return {"liter": gallon * 3.78541}

    def estimate_distance(self, cityA: str, cityB: str) -> Told:
        distance = DISTANCES.get(frozenset((cityA, cityB)))
        told = _error("distance not found in database.") if distance is None else {"distance": distance}
        return {**told, **self._long.get("cities", {})}

    def get_zipcode_based_on_city(self, city: str) -> Told:
        return {"zipcode": ZIP_CODES.get(city, "00000")}

    def set_navigation(self, destination: str) -> Told:
        self.destination = destination
        return {"status": "Navigating to " + destination}

    def check_tire_pressure(self) -> Told:
        healthy = 30 <= sum(self.tires.values()) / 4 <= 35
        return {**self.tires, "healthy_tire_pressure": healthy, "car_info": self._long.get("car", {})}

    def find_nearest_tire_shop(self) -> Told:
        return {"shopLocation": "456 Oakwood Avenue, Rivermist, 83214"}


def _error(sentence: str) -> Told:
    return {"error": sentence}
