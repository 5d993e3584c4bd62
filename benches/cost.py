#!/usr/bin/env python3
"""Computes what an audit costs, for the table in docs/performance.md.

The calls are counted, the CPU time was measured, and the latency of AWS is assumed; docs/performance.md says how.
"""

# List prices of US East (N. Virginia) in dollars, without free tiers.
PRICES = {
    "GB-second of Lambda on arm64": 0.0000133334,
    "Lambda invocation": 0.20 / 1e6,
    "S3 PUT": 0.005 / 1e3,
    "S3 GET or HEAD": 0.0004 / 1e3,
    "state transition of Step Functions": 0.025 / 1e3,
    "GB of logs": 0.50,
}

REGIONS = 17
# Counted with the local AWS on the third of three runs, in 10 accounts of 17 Regions, with 60 reports each.
EC2_CALLS, S3_PUTS, S3_GETS = 2, 2, 3
# On a day with new reports: their entries are read, a report without any is confirmed, and one more object is written.
NEW_EC2_CALLS, NEW_S3_PUTS = 2, 1
# In each account: AssumeRole and DescribeRegions.
ACCOUNT_CALLS = 2
# In each run: a look for its own snapshot, the snapshot before and its copy; the snapshot, the page, and their copies.
RUN_S3_GETS, RUN_S3_PUTS = 3, 4
# In a run over many invocations: the plan and its list; for each batch, the plan is read, and the outcomes are written
# and read twice. Each batch is a transition, and so is each of the five other states.
FAN_OUT_PUTS, BATCH_PUTS, BATCH_GETS, OTHER_TRANSITIONS = 2, 1, 3, 5
# Measured in the same runs, with a whole core; the log has 250 bytes a target, and what CloudWatch adds.
CPU_SECONDS = 0.0045
LOG_BYTES = 300
# Assumed: EC2 and S3 are in other Regions, far and near.
SECONDS_OF_A_CALL = 0.1
# The template's defaults. A function with 1,769 MB has one core.
MEMORY_MB, CONCURRENT_TARGETS, CORE_MB = 256, 8, 1769
LIMIT_SECONDS = 900
# As in statemachine/audit.asl.json.
TARGETS_OF_A_BATCH = 50


def audit(accounts, with_new_reports):
    """Returns what a run over that many accounts takes, and its price."""
    targets = accounts * REGIONS
    ec2_calls = targets * (EC2_CALLS + with_new_reports * NEW_EC2_CALLS) + accounts * ACCOUNT_CALLS
    puts = targets * (S3_PUTS + with_new_reports * NEW_S3_PUTS) + RUN_S3_PUTS
    gets = targets * S3_GETS + RUN_S3_GETS
    waits = (ec2_calls + puts + gets) * SECONDS_OF_A_CALL / CONCURRENT_TARGETS
    # Waits and CPU time overlap in part: their sum is an upper bound.
    seconds = waits + targets * CPU_SECONDS * CORE_MB / MEMORY_MB
    # A run that does not fit is split.
    invocations, transitions = 1, 0
    if seconds > LIMIT_SECONDS:
        batches = -(-targets // TARGETS_OF_A_BATCH)
        invocations, transitions = batches + 2, batches + OTHER_TRANSITIONS
        puts += FAN_OUT_PUTS + batches * BATCH_PUTS
        gets += batches * BATCH_GETS
    gb_seconds = seconds * MEMORY_MB / 1024
    price = (
        gb_seconds * PRICES["GB-second of Lambda on arm64"]
        + invocations * PRICES["Lambda invocation"]
        + puts * PRICES["S3 PUT"]
        + gets * PRICES["S3 GET or HEAD"]
        + transitions * PRICES["state transition of Step Functions"]
        + targets * LOG_BYTES / 1e9 * PRICES["GB of logs"]
    )
    return targets, ec2_calls, puts, gets, seconds, gb_seconds, transitions, price


def main():
    print("| accounts × Regions | new reports | calls to EC2 and STS | S3 puts | S3 gets | seconds | GB-seconds | transitions | a run | 30 runs |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for accounts in (1, 50, 3000):
        for with_new_reports in (False, True):
            _, ec2_calls, puts, gets, seconds, gb_seconds, transitions, price = audit(accounts, with_new_reports)
            new = "in each target" if with_new_reports else "none"
            numbers = [f"{number:,.0f}" for number in (ec2_calls, puts, gets, seconds)]
            print(f"| {accounts:,} × {REGIONS} | {new} | {' | '.join(numbers)} | {gb_seconds:,.1f} | {transitions or '—'} | ${price:,.4f} | ${30 * price:,.2f} |")


if __name__ == "__main__":
    main()
