package report

import (
	"slices"
	"sort"
	"time"
)

// Report is a run's results.
type Report struct {
	Command  string    `json:"command"`
	Host     Host      `json:"host"`
	Started  time.Time `json:"started"`
	Seconds  float64   `json:"seconds"`
	Rounds   int       `json:"rounds"`
	Subjects []string  `json:"subjects"`
	Results  []*Result `json:"results"`
	Failures []Failure `json:"failures"`
}

// Host is the machine.
type Host struct {
	CPUs       int    `json:"cpus"`
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	Congestion string `json:"tcpCongestionControl"`
	// UplinkCongestion is that of the network namespace with the home uplink.
	UplinkCongestion string `json:"uplinkTCPCongestionControl,omitempty"`
}

// Result is one metric of one subject over all rounds.
type Result struct {
	Metric  MetricID  `json:"metric"`
	Subject string    `json:"subject"`
	Unit    string    `json:"unit"`
	Median  float64   `json:"median"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
	Samples []float64 `json:"samples"`
}

// Failure is a sample that could not be taken, or was left out.
type Failure struct {
	Measure string `json:"measure"`
	Subject string `json:"subject"`
	Round   int    `json:"round"`
	Reason  string `json:"reason"`
	// Fatal: the measure failed. Otherwise the machine was busy with something else.
	Fatal bool `json:"fatal"`
}

// Add adds a sample's value.
func (r *Report) Add(id MetricID, subject string, value float64) {
	result := r.result(id, subject)
	if result == nil {
		m, _ := describe(id)
		result = &Result{Metric: id, Subject: subject, Unit: m.unit}
		r.Results = append(r.Results, result)
	}
	result.Samples = append(result.Samples, value)
	sorted := slices.Sorted(slices.Values(result.Samples))
	result.Min, result.Max, result.Median = sorted[0], sorted[len(sorted)-1], median(sorted)
}

// Merge adds what another run has measured.
func (r *Report) Merge(other Report) {
	for _, subject := range other.Subjects {
		if !slices.Contains(r.Subjects, subject) {
			r.Subjects = append(r.Subjects, subject)
		}
	}
	for _, result := range other.Results {
		for _, value := range result.Samples {
			r.Add(result.Metric, result.Subject, value)
		}
	}
	r.Failures = append(r.Failures, other.Failures...)
	if other.Host.UplinkCongestion != "" {
		r.Host.UplinkCongestion = other.Host.UplinkCongestion
	}
}

func (r *Report) result(id MetricID, subject string) *Result {
	for _, result := range r.Results {
		if result.Metric == id && result.Subject == subject {
			return result
		}
	}
	return nil
}

func median(sorted []float64) float64 {
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Quantile is the q-quantile of durations, 0 where there are none.
func Quantile(durations []time.Duration, q float64) time.Duration {
	if len(durations) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(durations))
	// The least that is not below so many of them (nearest rank).
	rank := sort.Search(len(sorted), func(i int) bool { return float64(i+1) >= q*float64(len(sorted)) })
	return sorted[min(rank, len(sorted)-1)]
}
