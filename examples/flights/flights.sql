-- Clock readings are local. `time_hour` is the scheduled hour of departure in UTC, so departure needs no zone;
-- arrival is read on the destination's clock. Puerto Rico and the Virgin Islands are missing from the airports.
with zoned as (
    select
        raw_flights.*,
        coalesce(airports.tzone, 'America/Puerto_Rico') as zone,
        time_hour + to_minutes(minute) as scheduled_at
    from raw_flights
    left join airports on airports.faa = raw_flights.dest
),
arriving as (
    -- the scheduled arrival is the first moment after departure at which the destination's clock shows it
    select
        *,
        timezone(zone, date_trunc('day', timezone(zone, scheduled_at))
            + to_minutes(sched_arr_time // 100 * 60 + sched_arr_time % 100)) as same_day_arrival
    from zoned
)
select
    carrier || flight || '-' || origin || '-' || strftime(timezone('UTC', time_hour), '%Y%m%d%H') as flight_id,
    carrier,
    flight,
    tailnum,
    origin,
    dest,
    distance,
    scheduled_at,
    dep_delay,
    scheduled_at + to_minutes(dep_delay) as departed_at,
    arr_delay,
    case when same_day_arrival > scheduled_at then same_day_arrival else same_day_arrival + interval 1 day end
        + to_minutes(arr_delay) as arrived_at
from arriving
