"""Settings → Services: the only place that builds adapters."""
