-- The schedule of each airport and day, what became of it, and the day's weather.
WITH days AS (
    SELECT
        make_date(year, month, day) AS flight_date,
        origin,
        count(*) AS scheduled,
        count(*) FILTER (WHERE arr_delay < 15) AS on_time,
        count(*) FILTER (WHERE arr_delay >= 15) AS late,
        count(*) FILTER (WHERE dep_time IS NOT NULL AND arr_delay IS NULL) AS diverted,
        count(*) FILTER (WHERE dep_time IS NULL) AS cancelled,
        avg(arr_delay) AS mean_arrival_delay
    FROM operations.departures.flights
    GROUP BY flight_date, origin
),
weather AS (
    SELECT
        make_date(year, month, day) AS flight_date,
        origin,
        sum(precip) AS rain,
        max(wind_speed) AS strongest_wind
    FROM weather.observations.hourly
    GROUP BY flight_date, origin
)
SELECT
    days.flight_date,
    days.origin,
    scheduled,
    on_time,
    late,
    diverted,
    cancelled,
    100.0 * on_time / scheduled AS on_time_percent,
    mean_arrival_delay,
    rain,
    strongest_wind
FROM days
LEFT JOIN weather ON weather.flight_date = days.flight_date AND weather.origin = days.origin
