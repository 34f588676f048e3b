package main

import (
	"fmt"
	"net/url"
	"strings"
)

// traced reports whether the environment asks for traces, by the standard variables of
// OpenTelemetry. Its SDK reads these and the others by itself, but goes on with a collector
// on this machine if it cannot make sense of an endpoint.
func traced(getenv func(string) string) (bool, error) {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") || getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false, nil
	}
	for _, variable := range []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"} {
		value := strings.TrimSpace(getenv(variable))
		if value == "" {
			continue
		}
		// The value is in no message: it may have a password.
		endpoint, err := url.Parse(value)
		if err != nil || endpoint.Host == "" || endpoint.Scheme != "http" && endpoint.Scheme != "https" {
			return false, usageError{fmt.Errorf("$%s: must be a URL such as http://collector.example.com:4318", variable)}
		}
		return true, nil
	}
	return false, nil
}
