"""What must hold when everything has streamed: the counts, the rejects, and every vector that was served."""

from __future__ import annotations

from batch.sql import query
from batch.tables import served_table
from batch.verify import verify
from features.served import served_topic
from headrace.demo import rejected
from headrace.demo.over_http import SERVICE
from headrace.demo.prepare import TOPICS, Demo
from headrace.demo.produce import Produced
from headrace.demo.watch import landed_messages

QUESTION = """
SELECT carrier, round(100 * avg((arr_delay_min > 15)::INT), 1) AS late_percent
FROM events.arrivals GROUP BY carrier HAVING count(arr_delay_min) >= 1000 ORDER BY late_percent DESC
"""


def count(demo: Demo, produced: Produced) -> None:
    """Nothing good is missing, nothing stands twice, and every broken message is where it can be seen and replayed."""
    report, broken = demo.report, len(demo.timeline.broken)
    with report.step("counts", "counting what is in Iceberg and among the rejects") as line:
        good = demo.timeline.good
        landed = {
            topic: int(query(f'SELECT count(*) FROM events."{topic}"', demo.batch)[0][0].as_py()) for topic in TOPICS
        }
        wanted = rejected.expected(produced.broken)
        in_table = rejected.matching(rejected.in_table(query(rejected.QUERY, demo.batch)), wanted)
        on_topic = rejected.matching(rejected.on_topic(demo.settings), wanted)
        report.figures |= {
            "events_produced": produced.messages,
            "events_landed": sum(landed.values()),
            "rejected": in_table,
        }
        report.check("events_produced", produced.messages, len(demo.timeline), "messages acknowledged by Kafka")
        for topic in TOPICS:
            report.check(f"landed_{topic}", landed[topic], good[topic], f"rows of events.{topic} in Iceberg")
        report.check("rejected_table", in_table, broken, "rejects in Iceberg: reason, place and bytes as they must be")
        report.check("rejected_topic", on_topic, broken, "rejects on the topic: the same")
        line.say(f"{sum(landed.values()):,} events in Iceberg; {in_table:,} rejects, each with reason, place and bytes")


def prove(demo: Demo) -> None:
    """Every logged vector, computed again over exactly the events that it was read from."""
    report = demo.report
    with report.step("verify", "computing every served vector again from the event log") as line:
        logged = landed_messages(demo.batch, served_table(SERVICE), served_topic(SERVICE))
        found = verify(
            demo.definitions, SERVICE, demo.batch, progress=lambda so_far: line.bar("compared", so_far.compared, logged)
        )
        report.figures |= {"vectors_compared": found.compared, "vectors_equal": found.equal}
        served = int(report.figures["vectors_read_while_streaming"]) + int(report.figures["vectors_scored"])
        report.check("vectors_compared", found.compared, served, "served vectors logged and computed again")
        report.check("vectors_equal", found.equal, found.compared, "of them equal, bit for bit")
        line.say(f"{found.equal:,} of {found.compared:,} served vectors are what training computes, bit for bit")
        if found.within_tolerance:
            report.notes.append(("1e-9", f"is how {', '.join(found.within_tolerance)} is compared, a deviation"))


def ask(demo: Demo) -> None:
    """An analyst's question."""
    with demo.report.step("sql", "asking Iceberg which carriers arrive late") as line:
        answer = query(QUESTION, demo.batch).to_pylist()
        worst, best = answer[0], answer[-1]
        line.say(
            f"SQL over Iceberg: {worst['carrier']} arrives late most often ({worst['late_percent']} %),"
            f" {best['carrier']} least ({best['late_percent']} %)"
        )
