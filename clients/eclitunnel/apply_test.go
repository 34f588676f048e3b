package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

func (p *panel) getAllocation(r *http.Request) answer {
	for _, a := range p.allocations {
		if strconv.FormatInt(a.ID, 10) == r.PathValue("id") {
			return answer{200, a}
		}
	}
	return refusal(404, types.CodeNotFound)
}

// updateAllocation changes an allocation as the panel does. Options that become null are removed.
func (p *panel) updateAllocation(r *http.Request) answer {
	var patch types.AllocationPatch
	if err := json.NewDecoder(r.Body).Decode(&patch); err != nil || patch == (types.AllocationPatch{}) {
		return refusal(400, types.CodeInvalidRequest)
	}
	for i := range p.allocations {
		a := &p.allocations[i]
		if strconv.FormatInt(a.ID, 10) != r.PathValue("id") {
			continue
		}
		if p.stuck {
			return refusal(409, types.CodeConflict)
		}
		set(&a.Name, patch.Name)
		set(&a.LocalHost, patch.LocalHost)
		set(&a.LocalPort, patch.LocalPort)
		set(&a.Port, patch.Port)
		set(&a.ServerID, patch.ServerID)
		set(&a.Labels, patch.Labels)
		if patch.Options != nil {
			options := optionsOf(a.Options)
			text, _ := json.Marshal(patch.Options)
			_ = json.Unmarshal(text, &options)
			a.Options, _ = toOptions(options)
			a.Options, _ = toOptions(optionsOf(a.Options))
		}
		if patch.Enabled != nil {
			a.Enabled, a.Status = *patch.Enabled, types.AllocationPaused
			if a.Enabled {
				a.Status = types.AllocationPending
			}
		}
		return answer{200, *a}
	}
	return refusal(404, types.CodeNotFound)
}

func set[T any](to, value *T) {
	if value != nil {
		*to = *value
	}
}

// file writes a file of apply.
func (m *machine) file(text string) string {
	m.t.Helper()
	path := filepath.Join(m.t.TempDir(), "tunnels.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// steps applies a file and returns what it printed for programs.
func (m *machine) steps(code int, args ...string) []step {
	m.t.Helper()
	o := m.run(append([]string{"apply", "--json"}, args...)...)
	o.want(m.t, code)
	var steps []step
	if err := json.Unmarshal([]byte(o.stdout), &steps); err != nil {
		m.t.Fatalf("printed %q: %v", o.stdout, err)
	}
	return steps
}

// wantSteps checks the actions of steps, by name.
func wantSteps(t *testing.T, steps []step, want map[string]action) {
	t.Helper()
	got := map[string]action{}
	for _, s := range steps {
		got[s.Name] = s.Action
	}
	if !maps.Equal(got, want) {
		t.Errorf("steps %v, want %v", got, want)
	}
}

func TestApply_OfTheExampleMakesItsPortsOnce(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	const example = "testdata/tunnels.yaml"
	m.run("apply", "-f", example, "--dry-run").want(t, 20, "+ minecraft: tcp to 127.0.0.1:25565", "+ valheim: udp to 192.168.1.20:2456-2458", "4 to create.")
	if len(p.allocations) != 0 {
		t.Fatalf("a dry run opened %+v", p.allocations)
	}
	m.run("apply", "-f", example).want(t, 0, "players join at play.test:19132", "4 created.", "--allow 192.168.1.20:2456-2458")
	if len(p.allocations) != 7 {
		t.Fatalf("opened %+v", p.allocations)
	}
	byName := map[string]types.Allocation{}
	for _, a := range p.allocations {
		byName[a.Name] = a
	}
	if a := byName["minecraft"]; !maps.Equal(a.Labels, types.Labels{"game": "minecraft", "season": "3", "managed-by": "apply"}) {
		t.Errorf("labels %v", a.Labels)
	}
	if a := byName["factorio"]; a.Enabled || a.Options.MaxPlayers.MustGet() != 20 {
		t.Errorf("factorio is %+v", a)
	}
	before := p.lastID
	m.run("apply", "-f", example, "--prune", "--replace").want(t, 0, "4 unchanged.")
	wantSteps(t, m.steps(0, "-f", example, "--dry-run"), map[string]action{"minecraft": actNothing, "bedrock": actNothing, "valheim": actNothing, "factorio": actNothing})
	if p.lastID != before || len(p.allocations) != 7 {
		t.Errorf("again: %+v", p.allocations)
	}
}

func TestApply_ChangesWhatDiffersInPlace(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	server := uuid.New()
	m.open("udp", "2456-2457", "--name", "valheim", "--label", "old=1")
	p.allocations[1].Enabled = false
	p.allocations[0].Options.MaxPlayers = nullable.NewNullableWithValue(5)
	ids := []int64{p.allocations[0].ID, p.allocations[1].ID}
	file := m.file(fmt.Sprintf(`{"tunnels": {"valheim": {"protocol": "UDP",
		"local": "game.lan:7777-7778", "server": "%s", "labels": {"game": "x"}, "options": {"deny": ["203.0.113.7"], "udpIdleSeconds": 30}}}}`, server))
	steps := m.steps(0, "-f", file)
	wantSteps(t, steps, map[string]action{"valheim": actChange})
	var fields []string
	for _, d := range steps[0].Differences {
		fields = append(fields, d.Field)
	}
	slices.Sort(fields)
	if want := "labels.game labels.managed-by labels.old local.host local.port local.port options.deny options.maxPlayers options.udpIdleSeconds server"; strings.Join(fields, " ") != want {
		t.Errorf("differences %v", fields)
	}
	for i, a := range p.allocations {
		if a.ID != ids[i] || a.LocalHost != "game.lan" || a.LocalPort != 7777+i || len(a.Labels) != 2 || *a.Options.UDPIdleSeconds != 30 || a.Options.MaxPlayers.IsSpecified() {
			t.Errorf("%d is %+v", i, a)
		}
	}
	if p.allocations[0].ServerID != server || p.allocations[0].Enabled != true || p.allocations[1].Enabled != false {
		t.Errorf("moved %+v", p.allocations)
	}
}

func TestApply_ReplacesOnlyIfAsked(t *testing.T) {
	for text, differs := range map[string]string{
		"protocol: udp\n    local: 25565":                           `protocol: "tcp" -> "udp"`,
		"protocol: tcp+udp\n    local: 25565\n    publicPort: 1000": `protocol: "tcp" -> "tcp+udp"`,
		"protocol: tcp\n    local: 25565\n    publicPort: 4000":     "publicPort: 1000 -> 4000",
		"protocol: tcp\n    local: 25565-25566":                     "ports: 1 -> 2",
	} {
		p := newPanel(t)
		m := enrolledAt(t, p)
		m.open("tcp", "25565", "--name", "mine", "--public-port", "1000")
		m.open("tcp", "8080", "--name", "other")
		file := m.file("tunnels:\n  mine:\n    " + text)
		m.run("apply", "-f", file, "--dry-run", "--replace").want(t, 20, "-/+ mine: play.test:1000", differs)
		m.run("apply", "-f", file).want(t, 21, "add --replace", "1 not possible", "1 of 1")
		if len(p.allocations) != 2 || p.allocations[0].ID != 1 {
			t.Fatalf("%s: %+v", text, p.allocations)
		}
		wantSteps(t, m.steps(0, "-f", file, "--replace"), map[string]action{"mine": actReplace})
		if _, left := find(p, "mine"); left.ID == 1 || p.allocations[0].Name != "other" {
			t.Errorf("%s: %+v", text, p.allocations)
		}
		m.run("apply", "-f", file).want(t, 0, "1 unchanged")
	}
}

// find returns the allocations with a name, and the first of them.
func find(p *panel, name string) (found []types.Allocation, first types.Allocation) {
	for _, a := range p.allocations {
		if a.Name == name {
			found = append(found, a)
		}
	}
	if len(found) > 0 {
		first = found[0]
	}
	return found, first
}

// TestApply_ReplacementThatFailsKeepsThePort: the new public port is taken.
func TestApply_ReplacementThatFailsKeepsThePort(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	m.open("tcp", "25565", "--name", "mine", "--public-port", "1000")
	m.open("tcp", "8080", "--public-port", "2000")
	file := m.file("tunnels: {mine: {protocol: tcp, local: 25565, publicPort: 2000}, next: {protocol: udp, local: 5}}")
	m.run("apply", "-f", file, "--replace").want(t, 21, "port_taken", "1 created, 1 not possible")
	if found, _ := find(p, "mine"); len(found) != 1 || found[0].Port != 1000 {
		t.Errorf("left %+v", found)
	}
}

func TestApply_PrunesItsOwnSetAlone(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	m.open("tcp", "1", "--name", "by-hand")
	m.open("tcp", "2", "--name", "by-tool", "--label", "managed-by=terraform")
	two := m.file("tunnels:\n  a: { protocol: tcp, local: 3 }\n  b: { protocol: udp, local: 4-5 }\n")
	m.run("apply", "-f", two).want(t, 0)
	m.run("apply", "-f", two, "--set", "night").want(t, 0, "2 created")
	one := m.file("tunnels:\n  a: { protocol: tcp, local: 3 }\n")
	m.run("apply", "-f", one).want(t, 0, "1 made by an earlier apply", "--prune", "1 unchanged")
	m.run("apply", "-f", one, "--prune", "--dry-run").want(t, 20, "- b: play.test:")
	m.run("apply", "-f", one, "--prune").want(t, 0, "1 deleted, 1 unchanged")
	m.run("apply", "-f", m.file("tunnels:\n"), "--prune", "--set", "night").want(t, 0, "2 deleted")
	var names []string
	for _, a := range p.allocations {
		names = append(names, a.Name)
	}
	if slices.Sort(names); strings.Join(names, " ") != "a by-hand by-tool" {
		t.Errorf("left %v", names)
	}
}

// TestApply_AfterALostAnswerMakesNothingTwice: a request of the apply before is carried out once this one has read the list.
func TestApply_AfterALostAnswerMakesNothingTwice(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	file := m.file("tunnels: {a: {protocol: tcp, local: 3}}")
	m.run("apply", "-f", file).want(t, 0)
	made := p.allocations
	p.allocations = nil
	p.onList = func() *answer {
		p.onList = nil
		late := p.allocations
		p.allocations = made
		return &answer{200, append([]types.Allocation{}, late...)}
	}
	m.run("apply", "-f", file).want(t, 0, "1 created")
	if len(p.allocations) != 1 || p.allocations[0].ID != made[0].ID {
		t.Errorf("made %+v", p.allocations)
	}
	// What was deleted, or has another name now, is made again.
	p.allocations[0].Name = "renamed"
	m.run("apply", "-f", file).want(t, 0, "1 created")
	for range 3 {
		_, a := find(p, "a")
		m.run("close", "id:"+strconv.FormatInt(a.ID, 10)).want(t, 0)
		m.run("apply", "-f", file).want(t, 0, "1 created")
	}
	if found, a := find(p, "a"); len(found) != 1 || a.ID != 5 || len(p.allocations) != 2 {
		t.Errorf("left %+v", p.allocations)
	}
}

func TestApply_GoesOnAfterAFailure(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	m.open("tcp", "1", "--name", "stuck", "--public-port", "1000")
	p.stuck = true
	file := m.file("tunnels:\n  stuck: { protocol: tcp, local: 2 }\n  taken: { protocol: tcp, local: 3, publicPort: 1000 }\n  fine: { protocol: tcp, local: 4 }\n")
	o := m.run("apply", "-f", file)
	o.want(t, 21, "stuck: change tcp play.test:1000: The panel says conflict", "taken: The panel says port_taken", "1 created, 2 not possible.", "2 of 3")
	steps := m.steps(21, "-f", file)
	for _, s := range steps {
		if (s.Error == "") != (s.Name == "fine") || s.Done {
			t.Errorf("again: %+v", s)
		}
	}
}
