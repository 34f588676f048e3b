package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

const prometheusDir = "deploy/prometheus"

func TestRules_PromtoolAcceptsThemAndTheirTestsPass(t *testing.T) {
	run(t, prometheusDir, "promtool", "check", "config", "prometheus.yaml")
	run(t, prometheusDir, "promtool", "check", "rules", "alerts.yaml")
	run(t, prometheusDir, "promtool", "test", "rules", "alerts_test.yaml")
}

func TestRules_EachIsTestedAndHasItsPageInTheManual(t *testing.T) {
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, prometheusDir, "alerts.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	var tests struct {
		Tests []struct {
			Rules []struct {
				Alert  string `yaml:"alertname"`
				Expect []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, prometheusDir, "alerts_test.yaml")), &tests); err != nil {
		t.Fatal(err)
	}
	fires := map[string]bool{}
	for _, test := range tests.Tests {
		for _, rule := range test.Rules {
			fires[rule.Alert] = fires[rule.Alert] || len(rule.Expect) > 0
		}
	}
	manual := read(t, "docs", "operations.md")
	count := 0
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			count++
			if !fires[rule.Alert] {
				t.Errorf("no test has %s fire", rule.Alert)
			}
			if !strings.Contains(manual, "\n### "+rule.Alert+"\n") {
				t.Errorf("docs/operations.md has no heading %s", rule.Alert)
			}
			if rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Errorf("%s lacks a severity, a summary or a description", rule.Alert)
			}
		}
	}
	if headings := strings.Count(manual, "\n### Eclitunnel"); headings != count || count == 0 {
		t.Errorf("%d alerts, and %d headings in docs/operations.md", count, headings)
	}
}

// dashboard is what is read here of a Grafana dashboard.
type dashboard struct {
	UID, Title string
	Panels     []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ H, W, X, Y int }
		Targets []struct{ Expr, RefID string }
	}
	Templating struct{ List []struct{ Name string } }
}

var variable = regexp.MustCompile(`\$\{?(\w+)\}?`)

func TestDashboard_PromtoolAcceptsItsQueries(t *testing.T) {
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, "deploy", "grafana", "eclitunnel.json")), &d); err != nil {
		t.Fatal(err)
	}
	variables := map[string]string{"__rate_interval": "5m"}
	for _, v := range d.Templating.List {
		variables[v.Name] = ".*"
	}
	ids, taken := map[int]bool{}, map[[2]int]string{}
	rules := "groups: [{ name: dashboard, rules: [\n"
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("panel %q: id %d is taken", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok || x >= 24 {
					t.Fatalf("panel %q lies over %q or beyond the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if (len(p.Targets) == 0) != (p.Type == "row") {
			t.Errorf("panel %q of type %s has %d queries", p.Title, p.Type, len(p.Targets))
		}
		for _, target := range p.Targets {
			query := variable.ReplaceAllStringFunc(target.Expr, func(v string) string {
				name := variable.FindStringSubmatch(v)[1]
				value, ok := variables[name]
				if !ok {
					t.Errorf("panel %q uses the unknown variable %s", p.Title, name)
				}
				return value
			})
			rules += fmt.Sprintf("{ record: panel_%d_%s, expr: %q },\n", p.ID, target.RefID, query)
		}
	}
	file := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(file, []byte(rules+"]}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, ".", "promtool", "check", "rules", file)
}
