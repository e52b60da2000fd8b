"""Pacing: token buckets, wait queues and limiters. It knows neither HTTP nor stores."""
