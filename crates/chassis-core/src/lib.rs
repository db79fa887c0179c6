//! Lifecycle, configuration, errors, context, health and telemetry of a service.
