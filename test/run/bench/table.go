//go:build linux

package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// chosen is a subject's result: of hop2 the one by which streams are faster, and
// what that costs.
func (r *report) chosen(id, subject string) *result {
	if subject == hop2 {
		rate, _ := strings.CutSuffix(id, "-cpu")
		spliced, copied := r.result(rate, hop2), r.result(rate, hopCopy)
		if spliced != nil && copied != nil && copied.Median > spliced.Median {
			return r.result(id, hopCopy)
		}
	}
	return r.result(id, subject)
}

// columns are the subjects that have one: hop2 and hop2-copy share theirs.
func (r *report) columns() []string {
	return slices.DeleteFunc(slices.Clone(r.Subjects), func(s string) bool { return s == hopCopy })
}

// rows are the lines of a table: title, cells, goals.
func (r *report) rows() [][]string {
	measured := make(map[string]bool)
	var flows, ids []string
	for _, found := range r.Results {
		if !measured[found.Metric] && strings.HasPrefix(found.Metric, udpFlowsPrefix) {
			flows = append(flows, found.Metric)
		}
		measured[found.Metric] = true
	}
	slices.SortFunc(flows, func(a, b string) int { // By number: the shorter is the less.
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	for _, m := range metrics {
		if m.id == "udp-offered-lost" {
			ids = append(ids, flows...)
		}
		if measured[m.id] {
			ids = append(ids, m.id)
		}
	}
	var rows [][]string
	for _, id := range ids {
		m := describe(id)
		row := []string{m.title}
		if m.unit != yesNo {
			row[0] += ", " + m.unit
		}
		for _, subject := range r.columns() {
			row = append(row, r.cell(m, r.chosen(id, subject)))
		}
		rows = append(rows, append(row, r.goals(m)))
	}
	return rows
}

// cell is the median, with the spread where it is more than a twentieth of it, and
// how many rounds it is of where samples of some are missing.
func (r *report) cell(m metric, found *result) string {
	if found == nil {
		return ""
	}
	text := m.format(found.Median)
	if m.unit != yesNo && found.Max-found.Min > math.Abs(found.Median)/20 {
		text += fmt.Sprintf(" (%s-%s)", m.format(found.Min), m.format(found.Max))
	}
	once := slices.ContainsFunc(measures, func(by measure) bool { return by.name == m.id && by.once })
	if n := len(found.Samples); !once && n < r.Rounds {
		text += fmt.Sprintf(" [%d of %d]", n, r.Rounds)
	}
	return text
}

// goals compares ours, or the subject whose goal it is, with each goal that can be
// compared in this run.
func (r *report) goals(m metric) string {
	var texts []string
	for goal := range strings.SplitSeq(m.goals, "; ") {
		of, words := ours, strings.Fields(goal)
		if len(words) > 0 && (words[0] == oursPlain || words[0] == oursLimited) {
			of, words = words[0], words[1:]
		}
		mine := r.result(m.id, of)
		if len(words) == 0 || of != ours && mine == nil {
			continue // A subject that is not in every run.
		}
		if mine != nil {
			goal += r.verdict(m, words, mine.Median)
		}
		texts = append(texts, goal)
	}
	return strings.Join(texts, "; ")
}

// verdict says whether a value meets a goal; nothing where the subject that it is
// compared with was not measured.
func (r *report) verdict(m metric, goal []string, value float64) string {
	met, ratio := goal[0] == m.format(value), ""
	if len(goal) > 2 {
		bound, err := strconv.ParseFloat(goal[2], 64)
		if err != nil {
			return " is no goal"
		}
		if len(goal) > 3 {
			against := r.chosen(m.id, goal[3])
			if against == nil {
				return ""
			}
			bound *= against.Median
			ratio = ": " + number(value/against.Median)
		}
		met = goal[1] == "least" && value >= bound || goal[1] == "most" && value <= bound
	}
	return ratio + map[bool]string{true: " met", false: " missed"}[met]
}

// writeTable prints the results for people.
func (r *report) writeTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "measure\t%s\tgoal\n", strings.Join(r.columns(), "\t"))
	for _, row := range r.rows() {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, line := range r.failures() {
		fmt.Fprintln(w, line)
	}
	return nil
}

// failures are lines that say which samples are missing.
func (r *report) failures() []string {
	var lines []string
	busy := 0
	for _, f := range r.Failures {
		if f.Fatal {
			lines = append(lines, fmt.Sprintf("%s of %s, round %d: %s", f.Measure, f.Subject, f.Round, f.Reason))
		} else {
			busy++
		}
	}
	if busy > 0 {
		lines = append(lines, fmt.Sprintf("%d samples were left out because something else used the machine.", busy))
	}
	return lines
}

// writeMarkdown prints the results as a section of docs/benchmarks.md.
func (r *report) writeMarkdown(w io.Writer) error {
	uplink := ""
	if r.Host.UplinkCongestion != "" {
		uplink = " (" + r.Host.UplinkCongestion + " where the home uplink is)"
	}
	columns := r.columns()
	fmt.Fprintf(w, "### %s\n\n`%s`, %d CPUs, Linux %s, %s, TCP %s%s; %d rounds in %.0f s.\n\n| measure | %s | goal |\n|---|%s---|\n",
		r.Started.UTC().Format("2 January 2006"), r.Command, r.Host.CPUs, r.Host.Kernel, r.Host.Go, r.Host.Congestion, uplink, r.Rounds, r.Seconds,
		strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, row := range r.rows() {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
	}
	for _, line := range r.failures() {
		fmt.Fprintf(w, "\n%s\n", line)
	}
	_, err := fmt.Fprintln(w)
	return err
}
