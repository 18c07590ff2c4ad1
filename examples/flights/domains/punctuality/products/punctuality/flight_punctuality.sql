-- Every scheduled departure beside the weather of its hour at its airport, and the aircraft that was to fly it.
SELECT
    make_date(f.year, f.month, f.day) AS flight_date,
    f.carrier,
    f.flight,
    f.origin,
    f.dest,
    d.name AS destination,
    f.time_hour AS scheduled_hour,
    CASE
        WHEN f.dep_time IS NULL THEN 'cancelled'
        WHEN f.arr_delay IS NULL THEN 'diverted'
        WHEN f.arr_delay < 15 THEN 'on time'
        ELSE 'late'
    END AS outcome,
    f.dep_delay,
    f.arr_delay,
    f.distance,
    f.tailnum,
    a.tailnum IS NOT NULL AS aircraft_known,
    a.manufacturer,
    a.model,
    f.year - a.year AS aircraft_age,
    w.temp,
    w.wind_speed,
    w.precip,
    w.visib
FROM operations.departures.flights AS f
LEFT JOIN operations.network.airports AS d ON d.faa = f.dest
LEFT JOIN weather.observations.hourly AS w ON w.origin = f.origin AND w.time_hour = f.time_hour
LEFT JOIN fleet.registry.aircraft AS a ON a.tailnum = f.tailnum
