"""Plan machines and money for sessions without end; see `forecast.forecast`."""
