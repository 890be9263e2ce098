"""The typed configuration: schema, composition, validation, builders."""
