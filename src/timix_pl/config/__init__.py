"""The typed configuration: schema, composition and validation."""
