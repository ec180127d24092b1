-- the prepared events
SELECT "origin" AS key,
  epoch_us("at") AS t,
  (0::BIGINT + kafka_partition + 1) AS position,
  kafka_offset AS "offset",
  CASE WHEN isfinite(TRY(CAST((delay_min) AS DOUBLE))) THEN TRY(CAST((delay_min) AS DOUBLE)) + 0::DOUBLE END AS x0
FROM source_0
WHERE "origin" IS NOT NULL;

-- the partial aggregates of a micro-batch
SELECT ((md5_number_upper(key) & 4294967295) % 64)::INTEGER AS shard, * FROM (
  SELECT key, tile_key,
    max(t) AS newest,
    count(x0) AS "c0_0",
    coalesce(any_value(m0), 0) AS "c0_1",
    coalesce(fsum((v0 - m0)), 0) AS "c0_2",
    coalesce(fsum((v0 - m0) * (v0 - m0)), 0) AS "c0_3",
    coalesce(fsum((v0 - m0) * (v0 - m0) * (v0 - m0)), 0) AS "c0_4",
    coalesce(fsum((v0 - m0) * (v0 - m0) * (v0 - m0) * (v0 - m0)), 0) AS "c0_5",
    coalesce(min(v0), 'inf'::DOUBLE) AS "c0_6",
    coalesce(max(v0), '-inf'::DOUBLE) AS "c0_7"
  FROM (
    SELECT *, favg(v0) OVER (PARTITION BY key, tile_key) AS m0
    FROM (SELECT *, CASE WHEN x0::DOUBLE IS NOT NULL THEN greatest(least(x0::DOUBLE, 1.7668470647783843e+72::DOUBLE), -1.7668470647783843e+72::DOUBLE) END AS v0 FROM (SELECT *, unnest([(70368744177664 + cal0)::BIGINT]) AS tile_key FROM prepared)))
  GROUP BY key, tile_key)
ORDER BY shard, key, tile_key;
