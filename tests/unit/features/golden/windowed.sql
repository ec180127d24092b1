-- the prepared events
SELECT "origin" AS key,
  epoch_us("at") AS t,
  (0::BIGINT + kafka_partition + 1) AS position,
  kafka_offset AS "offset",
  TRY(CAST((CASE WHEN (delay_min > 15) THEN TRUE END) AS BOOLEAN)) AS x0,
  CASE WHEN isfinite(TRY(CAST((delay_min) AS DOUBLE))) THEN TRY(CAST((delay_min) AS DOUBLE)) + 0::DOUBLE END AS x1,
  TRY(CAST((dest) AS VARCHAR)) AS x2
FROM source_0
WHERE "origin" IS NOT NULL AND TRY((delay_min IS NOT NULL));

-- the partial aggregates of a micro-batch
SELECT ((md5_number_upper(key) & 4294967295) % 64)::INTEGER AS shard, * FROM (
  SELECT key, tile_key,
    max(t) AS newest,
    count(*) AS "c0_0",
    count(x0) AS "c1_0",
    coalesce(sum(trunc((CASE WHEN x1 IS NOT NULL THEN greatest(least(x1, 7.555786372591432e+22::DOUBLE), -7.555786372591432e+22::DOUBLE) END) * 4194304.0::DOUBLE)::HUGEINT), 0) AS "c2_0",
    coalesce(sum((((CASE WHEN x1 IS NOT NULL THEN greatest(least(x1, 7.555786372591432e+22::DOUBLE), -7.555786372591432e+22::DOUBLE) END) - trunc((CASE WHEN x1 IS NOT NULL THEN greatest(least(x1, 7.555786372591432e+22::DOUBLE), -7.555786372591432e+22::DOUBLE) END) * 4194304.0::DOUBLE) / 4194304.0::DOUBLE) * 1.9342813113834067e+25::DOUBLE)::BIGINT), 0)::HUGEINT AS "c2_1",
    count(x1) AS "c3_0",
    max(ord) FILTER (x2 IS NOT NULL) AS "c4_0"
  FROM (SELECT *, unnest([70368744177664::BIGINT, (211106232532992 + (t - ((t % 300000000) + 300000000) % 300000000) // 300000000)::BIGINT, (351843720888320 + (t - ((t % 900000000) + 900000000) % 900000000) // 900000000)::BIGINT, (492581209243648 + (t - ((t % 3600000000) + 3600000000) % 3600000000) // 3600000000)::BIGINT]) AS tile_key FROM prepared)
  GROUP BY key, tile_key)
ORDER BY shard, key, tile_key;
