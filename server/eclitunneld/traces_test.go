package main

import (
	"errors"
	"strings"
	"testing"
)

func TestTraced_FollowsTheEnvironment(t *testing.T) {
	const collector = "http://collector.example.com:4318"
	for name, test := range map[string]struct {
		environment map[string]string
		want        bool
		refused     bool
	}{
		"nothing":               {},
		"an endpoint":           {environment: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector}, want: true},
		"an endpoint of traces": {environment: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector + "/v1/traces"}, want: true},
		"an empty endpoint":     {environment: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": ""}},
		"no SDK":                {environment: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_SDK_DISABLED": "true"}},
		"no exporter":           {environment: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_TRACES_EXPORTER": "none"}},
		"no URL":                {environment: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "secret@collector:4318"}, refused: true},
		"another scheme":        {environment: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "grpc://secret@collector:4317"}, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := traced(func(variable string) string { return test.environment[variable] })
			if got != test.want {
				t.Errorf("traced = %t, want %t", got, test.want)
			}
			var usage usageError
			if errors.As(err, &usage) != test.refused {
				t.Errorf("error %v, refused %t", err, test.refused)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error has the value: %v", err)
			}
		})
	}
}
