"""Will this flight arrive half an hour late? Every flight out of New York in 2013, asked at scheduled departure."""

from pathlib import Path

import sources

import millpond as mp

# Raw files, as they come. Text "NA" means null.
raw_flights = mp.Table("raw_flights", source=sources.path("flights.csv.zip"), nulls=["NA"])
raw_weather = mp.Table("raw_weather", source=sources.path("weather.csv"), nulls=["NA"])
planes = mp.Table("planes", key="tailnum", source=sources.path("planes.csv"), nulls=["NA"])
airports = mp.Table("airports", key="faa", source=sources.path("airports.csv"), nulls=["NA", "\\N"])

# Flights with honest instants: local clock readings become UTC through the zone of each airport.
flights = mp.sql_table(
    "flights",
    raw_flights,
    airports,
    query=Path(__file__).with_name("flights.sql").read_text(),
    key="flight_id",
    time="departed_at",
    checks=[
        mp.not_null("flight_id", "scheduled_at", "origin", "dest", "carrier"),
        mp.unique("flight_id"),
        mp.accepted_values("origin", ["EWR", "JFK", "LGA"]),
        mp.in_range("dep_delay", -60, 24 * 60),
        mp.row_count(min=300_000),
        mp.foreign_key("dest", airports, "faa", severity="warn"),
        mp.check(
            "arrives after it leaves", (mp.col("arrived_at") > mp.col("departed_at")) | mp.col("arrived_at").is_null()
        ),
    ],
    description="One row a flight out of EWR, JFK or LGA in 2013.",
)


@mp.table(raw_weather, key=("origin", "observed_at"), time="observed_at", checks=[mp.in_range("temp", -40, 120)])
def weather(raw):
    """Hourly readings at the three airports; `time_hour` is in UTC already."""
    readings = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]
    return raw.select("origin", mp.col("time_hour").alias("observed_at"), *readings)


airport = mp.Entity("airport", key="origin")
plane = mp.Entity("plane", key="tailnum", unknown="allow")  # one flight in six has a plane nobody registered

traffic = mp.Features(  # a departure delay is known at departure
    "airport_traffic",
    entity=airport,
    source=flights,
    mean_delay_1h=mp.mean("dep_delay", over="1h"),
    mean_delay_3h=mp.mean("dep_delay", over="3h"),
    mean_delay_24h=mp.mean("dep_delay", over="24h"),
    worst_delay_3h=mp.max("dep_delay", over="3h"),
    departures_1h=mp.count(over="1h"),
    departures_3h=mp.count(over="3h"),
)
landings = mp.Features(  # an arrival delay is known at arrival
    "airport_landings",
    entity=airport,
    source=flights,
    time="arrived_at",
    mean_arrival_delay_3h=mp.mean("arr_delay", over="3h"),
    worst_arrival_24h=mp.max("arr_delay", over="24h"),
)
sky = mp.Features(
    "airport_weather",
    entity=airport,
    source=weather,
    temp=mp.latest("temp", within="3h"),
    humid=mp.latest("humid", within="3h"),
    wind_speed=mp.latest("wind_speed", within="3h"),
    precip=mp.latest("precip", within="3h"),
    precip_6h=mp.sum("precip", over="6h"),
    pressure=mp.latest("pressure", within="6h"),
    visib=mp.latest("visib", within="3h"),
)
plane_facts = mp.Features(  # a table without a time: facts that always held
    "plane_facts",
    entity=plane,
    source=planes,
    built=mp.latest("year"),
    seats=mp.latest("seats"),
    maker=mp.latest("manufacturer"),
)


@mp.request_features
def calendar(rows):
    """The local clock at the airport of departure."""
    local = mp.col("scheduled_at").dt.convert_time_zone("America/New_York")
    return rows.select(hour=local.dt.hour(), weekday=local.dt.weekday(), month=local.dt.month())


late = mp.Model(
    "late_arrival",
    task=mp.Classification(label=mp.col("arr_delay") >= 30),
    examples=flights,
    at="scheduled_at",
    label_known="arrived_at",
    inputs=[traffic, landings, sky, plane_facts, calendar, "carrier", "dest", "distance"],
    estimator="lightgbm",
    split=mp.Split(validation="2013-11-01", test="2013-12-01"),
    slices=["origin", "carrier"],
    gates=[mp.at_least("roc_auc", 0.70), mp.beats_baseline("log_loss"), mp.beats_champion("roc_auc")],
    description="Whether a flight arrives 30 minutes late or more, asked at its scheduled departure.",
)
