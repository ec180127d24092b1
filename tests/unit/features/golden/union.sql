-- the prepared events
SELECT "station" AS key,
  epoch_us(kafka_t) AS t,
  (0::BIGINT + kafka_partition + 1) AS position,
  kafka_offset AS "offset",
  TRY(CAST((sign) AS BIGINT)) AS x0
FROM (SELECT "at" AS kafka_t, kafka_partition, kafka_offset, TRY(CAST(origin AS VARCHAR)) AS "station", TRY(CAST(1 AS BIGINT)) AS "sign" FROM source_0)
WHERE "station" IS NOT NULL
UNION ALL
SELECT "station" AS key,
  epoch_us(kafka_t) AS t,
  (4294967296::BIGINT + kafka_partition + 1) AS position,
  kafka_offset AS "offset",
  TRY(CAST((sign) AS BIGINT)) AS x0
FROM (SELECT "at" AS kafka_t, kafka_partition, kafka_offset, TRY(CAST(dest AS VARCHAR)) AS "station", TRY(CAST(-1 AS BIGINT)) AS "sign" FROM source_1)
WHERE "station" IS NOT NULL;

-- the partial aggregates of a micro-batch
SELECT ((md5_number_upper(key) & 4294967295) % 64)::INTEGER AS shard, * FROM (
  SELECT key, tile_key,
    max(t) AS newest,
    coalesce(sum(x0), 0)::HUGEINT AS "c0_0",
    count(x0) AS "c1_0"
  FROM (SELECT *, unnest([70368744177664::BIGINT]) AS tile_key FROM prepared)
  GROUP BY key, tile_key)
ORDER BY shard, key, tile_key;
