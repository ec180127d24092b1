-- the prepared events
SELECT "origin" AS key,
  epoch_us("at") AS t,
  (0::BIGINT + kafka_partition + 1) AS position,
  kafka_offset AS "offset",
  TRY(CAST((TRUE) AS BOOLEAN)) AS x0,
  TRY(CAST((dest) AS VARCHAR)) AS x1,
  CASE WHEN isfinite(TRY(CAST((delay_min) AS DOUBLE))) THEN TRY(CAST((delay_min) AS DOUBLE)) + 0::DOUBLE END AS x2
FROM source_0
WHERE "origin" IS NOT NULL;

-- the partial aggregates of a micro-batch
SELECT ((md5_number_upper(key) & 4294967295) % 64)::INTEGER AS shard, * FROM (
  SELECT key, tile_key,
    max(t) AS newest,
    max(ord) FILTER (x0 IS NOT NULL) AS "c0_0",
    max(ord) FILTER (x1 IS NOT NULL) AS "c1_0",
    max(ord) FILTER (x2 IS NOT NULL) AS "c2_0"
  FROM (SELECT *, unnest([70368744177664::BIGINT]) AS tile_key FROM prepared)
  GROUP BY key, tile_key)
ORDER BY shard, key, tile_key;
