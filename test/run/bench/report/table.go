package report

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// The subject that goals are set for, and the two ways through two proxies, of
// which a stream takes the faster.
const (
	ours       = "ours"
	plain      = "ours-plain" // ours without the encryption of streams
	hop2       = "hop2"
	hop2Copied = "hop2-copy"
)

// chosen is a subject's result, of the faster way where there are two.
func (r *Report) chosen(m metric, subject string) *Result {
	result := r.result(m.id, subject)
	if subject != hop2 {
		return result
	}
	by := m
	if m.faster != "" {
		by, _ = describe(m.faster)
	}
	spliced, copied := r.result(by.id, hop2), r.result(by.id, hop2Copied)
	if spliced != nil && copied != nil && copied.Median > spliced.Median {
		return r.result(m.id, hop2Copied)
	}
	return result
}

// columns are the subjects that have one: the two ways through hop2 share theirs.
func (r *Report) columns() []string {
	var columns []string
	for _, s := range r.Subjects {
		if s != hop2Copied {
			columns = append(columns, s)
		}
	}
	return columns
}

// row is one line of a table, ready to print.
type row struct {
	title string
	cells []string
	goal  string
}

func (r *Report) rows() []row {
	var rows []row
	for _, id := range r.metricsInOrder() {
		m, ok := describe(id)
		if !ok {
			continue
		}
		line := row{title: m.title}
		if m.unit != yesNo {
			line.title += ", " + m.unit
		}
		for _, subject := range r.columns() {
			line.cells = append(line.cells, r.cell(m, r.chosen(m, subject)))
		}
		line.goal = r.goals(m)
		rows = append(rows, line)
	}
	return rows
}

// metricsInOrder is every metric that was measured of any subject.
func (r *Report) metricsInOrder() []MetricID {
	measured := make(map[MetricID]bool)
	var flows []MetricID
	for _, result := range r.Results {
		if !measured[result.Metric] && strings.HasPrefix(string(result.Metric), udpFlowsPrefix) {
			flows = append(flows, result.Metric)
		}
		measured[result.Metric] = true
	}
	slices.SortFunc(flows, func(a, b MetricID) int { // by number: the shorter is the less
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	var ids []MetricID
	for _, m := range metrics {
		if m.id == UDPOfferedLost {
			ids = append(ids, flows...)
		}
		if measured[m.id] {
			ids = append(ids, m.id)
		}
	}
	return ids
}

// cell is the median, with the spread where it is more than a twentieth of it, and
// how many rounds it is of where samples of some are missing.
func (r *Report) cell(m metric, result *Result) string {
	if result == nil {
		return ""
	}
	text := m.format(result.Median)
	if m.unit != yesNo && result.Max-result.Min > math.Abs(result.Median)/20 {
		text += fmt.Sprintf(" (%s-%s)", m.format(result.Min), m.format(result.Max))
	}
	if n := len(result.Samples); !m.once && n < r.Rounds {
		text += fmt.Sprintf(" [%d of %d]", n, r.Rounds)
	}
	return text
}

// goals compares ours with each goal that can be compared in this run.
func (r *Report) goals(m metric) string {
	var texts []string
	for _, g := range m.goals {
		mine := r.result(m.id, cmp.Or(g.of, ours))
		if g.of != "" && mine == nil {
			continue // it is not in every run
		}
		text := m.wording(g)
		other := r.chosen(m, g.against)
		if mine == nil || (g.against != "" && other == nil) {
			texts = append(texts, text)
			continue
		}
		verdict := "missed"
		against := 0.0
		if other != nil {
			against = other.Median
			text += fmt.Sprintf(": %s", number(mine.Median/against))
		}
		if m.met(g, mine.Median, against) {
			verdict = "met"
		}
		texts = append(texts, text+" "+verdict)
	}
	return strings.Join(texts, "; ")
}

// WriteTable prints the results for people.
func (r *Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "measure\t%s\tgoal\n", strings.Join(r.columns(), "\t"))
	for _, line := range r.rows() {
		fmt.Fprintf(t, "%s\t%s\t%s\n", line.title, strings.Join(line.cells, "\t"), line.goal)
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
func (r *Report) failures() []string {
	var lines []string
	busy := 0
	for _, f := range r.Failures {
		if !f.Fatal {
			busy++
			continue
		}
		lines = append(lines, fmt.Sprintf("%s of %s, round %d: %s", f.Measure, f.Subject, f.Round, f.Reason))
	}
	if busy > 0 {
		lines = append(lines, fmt.Sprintf("%d samples were left out because something else used the machine.", busy))
	}
	return lines
}

// WriteMarkdown prints the results as a section of docs/benchmarks.md.
func (r *Report) WriteMarkdown(w io.Writer) error {
	fmt.Fprintf(w, "### %s\n\n", r.Started.UTC().Format("2 January 2006"))
	uplink := ""
	if r.Host.UplinkCongestion != "" {
		uplink = " (" + r.Host.UplinkCongestion + " where the home uplink is)"
	}
	fmt.Fprintf(w, "`%s`, %d CPUs, Linux %s, %s, TCP %s%s; %d rounds in %.0f s.\n\n",
		r.Command, r.Host.CPUs, r.Host.Kernel, r.Host.Go, r.Host.Congestion, uplink, r.Rounds, r.Seconds)
	columns := r.columns()
	fmt.Fprintf(w, "| measure | %s | goal |\n", strings.Join(columns, " | "))
	fmt.Fprintf(w, "|---|%s---|\n", strings.Repeat("---|", len(columns)))
	for _, line := range r.rows() {
		fmt.Fprintf(w, "| %s | %s | %s |\n", line.title, strings.Join(line.cells, " | "), line.goal)
	}
	for _, line := range r.failures() {
		fmt.Fprintf(w, "\n%s\n", line)
	}
	_, err := fmt.Fprintln(w)
	return err
}
