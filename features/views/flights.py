"""Will this flight arrive late? What airports, carriers, planes and routes have done by its scheduled departure."""

from features import (
    Count,
    DerivedView,
    Entity,
    FeatureService,
    FeatureView,
    Last,
    Max,
    Mean,
    Quantile,
    Request,
    StdDev,
    Sum,
    Window,
)
from schemas.flights import Arrival, Flight

OWNER = "ops-ml"

airport = Entity("airport", join_key="origin", description="A New York airport: EWR, JFK or LGA")
destination = Entity("destination", join_key="dest", description="The airport that a flight goes to")
carrier = Entity("carrier", join_key="carrier", description="An airline, by its two-letter code")
plane = Entity("plane", join_key="tailnum", description="A plane, by its tail number")

airport_delays = FeatureView(
    "airport_delays",
    entity=airport,
    source=Flight,
    where="dep_delay_min IS NOT NULL",
    owner=OWNER,
    description="How punctually an airport's flights have been leaving",
    features={
        "departures_1h": Count(over="1h"),
        "delay_mean_1h": Mean("dep_delay_min", over="1h"),
        "delay_mean_6h": Mean("dep_delay_min", over="6h"),
        "late_share_24h": Mean("(dep_delay_min > 15)::INT", over=Window("24h", hop="15m")),
        "delay_p90_24h": Quantile("dep_delay_min", 0.9, over="24h"),
        "delay_max_24h": Max("dep_delay_min", over="24h"),
        "last_delay": Last("dep_delay_min"),
    },
)
carrier_delays = FeatureView(
    "carrier_delays",
    entity=carrier,
    source=Flight,
    owner=OWNER,
    description="How punctually a carrier's flights have been leaving",
    features={
        "departures": Count(),
        "delay_mean_6h": Mean("dep_delay_min", over="6h"),
        "delay_mean_24h": Mean("dep_delay_min", over="24h"),
        "delay_stddev_7d": StdDev("dep_delay_min", over="7d"),
        "hour_late_24h": Count(over="24h", where="dep_delay_min > 60"),
    },
)
plane_history = FeatureView(
    "plane_history",
    entity=plane,
    source=Arrival,
    owner=OWNER,
    description="Where a plane was last, and how late",
    features={
        "last_delay": Last("arr_delay_min"),
        "last_dest": Last("dest"),
        "delay_mean_24h": Mean("arr_delay_min", over="24h"),
        "arrivals_24h": Count(over="24h"),
        "miles_7d": Sum("distance_miles", over="7d"),
        "miles": Sum("distance_miles"),
    },
)
# A route is a pair of airports: its key is composite.
route_history = FeatureView(
    "route_history",
    entities=[airport, destination],
    source=Arrival,
    owner=OWNER,
    description="What a route's flights usually do",
    features={
        "arrivals": Count(),
        "delay_mean_6h": Mean("arr_delay_min", over="6h"),
        "delay_mean_24h": Mean("arr_delay_min", over="24h"),
        "delay_mean_7d": Mean("arr_delay_min", over="7d"),
        "late_share": Mean("(arr_delay_min > 15)::INT"),
        "air_time_mean": Mean("air_time_min"),
    },
)
pressure = DerivedView(
    "pressure",
    inputs=[airport_delays, carrier_delays, route_history, Request(distance_miles=int)],
    owner=OWNER,
    description="How the views compare, and how fast the route is for this flight's distance",
    features={
        "vs_carrier": "airport_delays.delay_mean_6h - carrier_delays.delay_mean_6h",
        "miles_per_hour": "60.0 * distance_miles / route_history.air_time_mean",
    },
)
# The events are of 2013, so the instant of a vector is theirs, and every vector is logged: the demo proves them all.
# A service over live traffic leaves clock= away and logs a share, as in log=0.01.
late_arrival = FeatureService(
    "late_arrival",
    [airport_delays, carrier_delays, plane_history, route_history, pressure],
    clock="event",
    log=1.0,
    owner=OWNER,
    description="What the model of late arrivals reads at a flight's scheduled departure",
)
