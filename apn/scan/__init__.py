"""`apn scan`: any number of images, on processes of this machine or on Ray, resumable at any moment.

What is to be scanned is listed once and cut into numbered shards; a shard is done when its part is there. Nothing else
is remembered, so nothing else can be wrong after a kill:

    OUT/scan.json               what is scanned, with what: a run that goes on must say the same
    OUT/shards/000012.jsonl     the images of shard 12, written as they are listed
    OUT/shards/listing.json     how many shards there are; once it is there, nothing is listed again
    OUT/parts/part-000012.parquet   a row an image of shard 12, written whole or not at all
    OUT/summary.json            counts by verdict and error, at the end

sources -> entries -> shards (the driver); shard -> images -> detector -> part (a worker, local.py or cluster.py).
"""
