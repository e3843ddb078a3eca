"""The only place that names adapters: settings and locks in, engines, stores and sinks out; SDKs imported lazily."""
