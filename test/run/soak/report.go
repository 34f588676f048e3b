//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// result is how long what took to be back after one fault.
type result struct {
	Fault string `json:"fault"`
	Took  times  `json:"took"`
}

// report is what a soak found.
type report struct {
	Seed     uint64   `json:"seed"`
	Results  []result `json:"results"`
	Skipped  []string `json:"skipped"`
	Breaches []string `json:"breaches"`
	Summary  string   `json:"summary"`
	// Failed is why the soak ended early; "" if it did not.
	Failed string `json:"failed"`
}

func (t times) String() string {
	var parts []string
	for _, what := range columns {
		if d, ok := t[what]; ok {
			parts = append(parts, fmt.Sprintf("%s %.2f s", what, d.Seconds()))
		}
	}
	return strings.Join(parts, ", ")
}

// columns are what is measured, in the order in which it is shown.
var columns = []string{whatPlayers, whatChannels, whatListening, whatChange, whatAPI, whatRevoked}

// write prints a table: for each fault how often it happened, and for everything
// that is measured the median and the worst in seconds.
func (r report) write(out io.Writer) error {
	var names []string
	samples := map[string]map[string][]time.Duration{}
	count := map[string]int{}
	for _, result := range r.Results {
		if samples[result.Fault] == nil {
			names = append(names, result.Fault)
			samples[result.Fault] = map[string][]time.Duration{}
		}
		count[result.Fault]++
		for what, d := range result.Took {
			samples[result.Fault][what] = append(samples[result.Fault][what], d)
		}
	}
	slices.Sort(names)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "\nback after, in s: median / worst\tcount\t%s\n", strings.Join(columns, "\t"))
	for _, name := range names {
		line := []string{name, fmt.Sprint(count[name])}
		for _, what := range columns {
			line = append(line, spread(samples[name][what]))
		}
		fmt.Fprintln(table, strings.Join(line, "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s\nseed %d\n", r.Summary, r.Seed)
	for _, s := range r.Skipped {
		fmt.Fprintf(out, "skipped: %s\n", s)
	}
	for _, b := range r.Breaches {
		fmt.Fprintf(out, "BROKEN: %s\n", b)
	}
	return nil
}

// spread is the median and the worst.
func spread(all []time.Duration) string {
	if len(all) == 0 {
		return ""
	}
	slices.Sort(all)
	return fmt.Sprintf("%.2f / %.2f", all[len(all)/2].Seconds(), all[len(all)-1].Seconds())
}
