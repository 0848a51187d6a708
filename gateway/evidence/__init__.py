"""The judge: anytime-valid evidence that a candidate is worse, or good enough. Pure: integers in, verdict out.

counts, verdict     what goes in, what comes out; sentence writes it for people
label               events by arm, per stage: errors, bins, successes; likelihood is the mathematics of it
latency, quantiles  frozen thresholds, each a label test; quantiles for people
distribution        outputs by bin and edge
paired, limit       shadow pairs; a share against a limit
betting, mean, fairness  bounded and unbounded metrics, gaps between groups; difference is what they share
ratio, watermark, dispersion  when the numbers may be believed: the split, settled requests, bursts
combine             one risk for the whole rollout; restarts weighs evidence since each stage
plan                how long each guardrail will need
numeric             special functions in the log domain

No module reads a clock, a file or a random number. The same counts give the same verdict, bit by bit, in whatever order
they were merged (on one machine and one version of NumPy: another may round a logarithm differently in its last bit).
"""
