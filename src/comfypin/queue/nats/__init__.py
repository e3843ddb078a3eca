"""A queue that many machines share, on NATS JetStream: any number of servers, and workers for each release."""
