"""Rollouts that decide. Pure: a plan and what was counted go in, a decision comes out; nothing here reads a clock, a
file of its own, or a store.

phase       stages, events, holds, and which moves are legal
guardrail   what is measured and how much worse is too much; plan has them with steps, times and risks
forecast    what a plan says it will do, and how long that takes
acceptance  what a candidate must do before its first request; trial: how that travels
baseline    what was frozen of stable before the start
cursor      where a rollout stands, as it is stored; snapshot, evidence: all that one decision reads
judge, hard what the guardrails say; facts that need no statistics
decide      what to do, by stage; earn: what must be shown before it goes on; look: what both stand on
decision    what comes out, as it is stored; explain, replay: why, and whether it would be the same again
"""
