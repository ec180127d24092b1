-- the prepared events
SELECT strlen("origin") || ':' || "origin" || strlen("dest") || ':' || "dest" AS key,
  epoch_us("at") AS t,
  (0::BIGINT + kafka_partition + 1) AS position,
  kafka_offset AS "offset"
FROM source_0
WHERE "origin" IS NOT NULL AND "dest" IS NOT NULL;

-- the partial aggregates of a micro-batch
SELECT ((md5_number_upper(key) & 4294967295) % 64)::INTEGER AS shard, * FROM (
  SELECT key, tile_key,
    max(t) AS newest,
    count(*) AS "c0_0"
  FROM (SELECT *, unnest([70368744177664::BIGINT]) AS tile_key FROM prepared)
  GROUP BY key, tile_key)
ORDER BY shard, key, tile_key;
