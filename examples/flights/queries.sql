-- What the demo asks once everything is published. Faulty rows are in quarantine, so they are in none of these answers.

-- 1. Which airlines leave New York the latest? Mean departure delay in minutes over the flights that left: the five worst.
SELECT a.name AS airline, count(f.dep_delay) AS departures, round(avg(f.dep_delay), 2) AS mean_delay
FROM operations.departures.flights AS f
JOIN fleet.registry.airlines AS a ON a.carrier = f.carrier
GROUP BY a.name
ORDER BY mean_delay DESC
LIMIT 5;

-- 2. What does rain do? Every scheduled departure beside the weather of its hour at its airport: two domains' work in one
-- answer. Flights in an hour whose weather is missing or quarantined are left out.
SELECT CASE WHEN w.precip = 0 THEN 'dry' WHEN w.precip < 0.1 THEN 'light' ELSE 'heavy' END AS rain,
       count(*) AS scheduled,
       round(100.0 * count(*) FILTER (WHERE f.dep_time IS NULL) / count(*), 2) AS cancelled_percent,
       round(avg(f.dep_delay), 2) AS mean_delay
FROM operations.departures.flights AS f
JOIN weather.observations.hourly AS w ON w.origin = f.origin AND w.time_hour = f.time_hour
GROUP BY 1
ORDER BY mean_delay;

-- 3. The strongest wind left at each airport, now that 1,048 mph is in quarantine.
SELECT origin, round(max(wind_speed), 2) AS strongest_wind, round(max(wind_gust), 2) AS strongest_gust
FROM weather.observations.hourly
GROUP BY origin
ORDER BY origin;

-- 4. How many departures can be joined to the aircraft that flew them? The carriers that report fleet numbers stand out.
SELECT f.carrier, count(f.tailnum) AS with_tail_number, count(a.tailnum) AS in_registry
FROM operations.departures.flights AS f
LEFT JOIN fleet.registry.aircraft AS a ON a.tailnum = f.tailnum
GROUP BY f.carrier
HAVING count(a.tailnum) < 0.5 * count(f.tailnum)
ORDER BY f.carrier;

-- 5. Where do people fly that the list of airports does not know? Puerto Rico and the US Virgin Islands.
SELECT f.dest, count(*) AS flights
FROM operations.departures.flights AS f
LEFT JOIN operations.network.airports AS a ON a.faa = f.dest
WHERE a.faa IS NULL
GROUP BY f.dest
ORDER BY flights DESC;

-- 6. What became of the flights? On time is less than 15 minutes late at arrival, as the Department of Transportation has it.
SELECT outcome, count(*) AS flights, round(100.0 * count(*) / sum(count(*)) OVER (), 2) AS percent
FROM punctuality.punctuality.flight_punctuality
GROUP BY outcome
ORDER BY flights DESC;

-- 7. What does a wet day do? Days and airports, by the rain that fell.
SELECT CASE WHEN rain > 0.5 THEN 'wet' WHEN rain > 0 THEN 'showers' ELSE 'dry' END AS day,
       count(*) AS days,
       round(100.0 * sum(on_time) / sum(scheduled), 2) AS on_time_percent,
       round(100.0 * sum(cancelled) / sum(scheduled), 2) AS cancelled_percent
FROM punctuality.punctuality.daily_punctuality
WHERE rain IS NOT NULL
GROUP BY 1
ORDER BY on_time_percent DESC;
