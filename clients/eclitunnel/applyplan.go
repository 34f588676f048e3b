package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// The labels by which apply finds the ports that it may delete.
const (
	managedBy   = "managed-by"
	managedHere = "apply"
	applySet    = "apply-set"
)

// action is what apply does with a tunnel.
type action string

const (
	actNothing action = "unchanged"
	actCreate  action = "create"
	actChange  action = "change"
	actReplace action = "replace" // Deletes it and creates it again.
	actDelete  action = "delete"
)

// difference is a field that is not as the file has it.
type difference struct {
	Field string `json:"field"`
	From  any    `json:"from"`
	To    any    `json:"to"`
}

// step is what apply does with one tunnel.
type step struct {
	Name        string       `json:"name"`
	Action      action       `json:"action"`
	Differences []difference `json:"differences,omitempty"`
	// Done is whether it has been carried out.
	Done  bool   `json:"done"`
	Error string `json:"error,omitempty"`
	// Allocations are those of the tunnel, afterwards if it is done.
	Allocations []types.Allocation `json:"allocations"`

	want    declared
	patches []types.AllocationPatch // For each of Allocations; a zero one changes nothing.
	err     error
}

// planner compares a file with the ports that there are.
type planner struct {
	set   string
	units [][]types.Allocation // Those of a tunnel each; used ones are removed.
}

// newPlanner groups the allocations of the device into tunnels: runs, or those on one public port.
func newPlanner(set string, allocations []types.Allocation) *planner {
	type key struct {
		run    uuid.UUID
		server uuid.UUID
		port   int
		name   string
	}
	p := &planner{set: set}
	at := map[key]int{}
	for _, a := range slices.Backward(allocations) { // The oldest first.
		k := key{server: a.ServerID, port: a.Port, name: a.Name}
		if run, err := a.RunID.Get(); err == nil {
			k = key{run: run}
		}
		i, found := at[k]
		if !found {
			i = len(p.units)
			at[k] = i
			p.units = append(p.units, nil)
		}
		p.units[i] = append(p.units[i], a)
	}
	for _, unit := range p.units {
		slices.SortFunc(unit, func(a, b types.Allocation) int {
			if a.Port != b.Port {
				return a.Port - b.Port
			}
			return strings.Compare(string(a.Protocol), string(b.Protocol))
		})
	}
	return p
}

// manages reports whether a unit is of this file's set, and whether it is of any.
func (p *planner) manages(unit []types.Allocation) (mine, anybodys bool) {
	for _, a := range unit {
		if a.Labels[managedBy] == managedHere {
			return a.Labels[applySet] == p.set, true
		}
	}
	return false, false
}

// plan returns the steps for what a file declares, in the order in which they are carried out: deletions come first,
// because others may need the ports. With prune, it deletes the tunnels of the set that the file does not declare; left is
// how many they are without.
func (p *planner) plan(file []declared, prune bool) (steps []*step, left int) {
	for _, d := range file {
		d.labels = maps.Clone(d.labels)
		d.labels[managedBy] = managedHere
		if p.set != "" {
			d.labels[applySet] = p.set
		}
		steps = append(steps, p.tunnel(d))
	}
	var deletions []*step
	for _, unit := range p.units {
		if mine, _ := p.manages(unit); mine {
			deletions = append(deletions, &step{Name: unit[0].Name, Action: actDelete, Allocations: unit})
		}
	}
	if !prune {
		return steps, len(deletions)
	}
	return append(deletions, steps...), 0
}

// tunnel returns the step for a tunnel. Of the ports with its name it takes those of the set, or else one that nobody's
// apply manages, and rather one that can stay.
func (p *planner) tunnel(d declared) *step {
	best, rank := -1, -1
	for i, unit := range p.units {
		mine, anybodys := p.manages(unit)
		if unit[0].Name != d.name || anybodys && !mine {
			continue
		}
		r := 0
		if mine {
			r = 2
		}
		if len(structure(d, unit)) == 0 {
			r++
		}
		if r > rank {
			best, rank = i, r
		}
	}
	if best < 0 {
		return &step{Name: d.name, Action: actCreate, want: d}
	}
	unit := p.units[best]
	p.units = slices.Delete(p.units, best, best+1)
	return compare(d, unit)
}

// structure returns the differences for which a tunnel has to be deleted and created again.
func structure(d declared, unit []types.Allocation) (differences []difference) {
	differ := func(field string, from, to any) {
		if from != to {
			differences = append(differences, difference{field, from, to})
		}
	}
	var protocols []string
	first, last := unit[0].Port, unit[len(unit)-1].Port
	for _, a := range unit {
		if !slices.Contains(protocols, string(a.Protocol)) {
			protocols = append(protocols, string(a.Protocol))
		}
	}
	slices.Sort(protocols)
	differ("protocol", strings.Join(protocols, "+"), string(d.protocol))
	count := last - first + 1
	if len(unit) == count*len(protocols) {
		differ("ports", count, d.target.count)
	} else { // Somebody has deleted some.
		differ("ports", fmt.Sprintf("%d of %d", len(unit), count*len(protocols)), d.target.count)
	}
	if d.port != 0 {
		differ("publicPort", first, d.port)
	}
	return differences
}

// compare returns the step that makes a unit what the file has.
func compare(d declared, unit []types.Allocation) *step {
	s := &step{Name: d.name, Action: actNothing, Allocations: unit, want: d}
	if s.Differences = structure(d, unit); len(s.Differences) > 0 {
		s.Action = actReplace
		return s
	}
	s.patches = make([]types.AllocationPatch, len(unit))
	if d.server != nil && *d.server != unit[0].ServerID {
		s.differ("server", unit[0].ServerID, *d.server)
		s.patches[0].ServerID = d.server // The others move with it.
	}
	for i, a := range unit {
		s.allocation(&s.patches[i], a, a.Port-unit[0].Port)
	}
	if len(s.Differences) > 0 {
		s.Action = actChange
	}
	return s
}

// differ notes a difference, of several allocations once.
func (s *step) differ(field string, from, to any) {
	d := difference{field, from, to}
	if !slices.ContainsFunc(s.Differences, func(other difference) bool { return reflect.DeepEqual(d, other) }) {
		s.Differences = append(s.Differences, d)
	}
}

// allocation compares one allocation, which is at an offset of its run, and fills its patch.
func (s *step) allocation(patch *types.AllocationPatch, a types.Allocation, offset int) {
	d := s.want
	if a.Name != d.name { // Another one of the run has it.
		s.differ("name", a.Name, d.name)
		patch.Name = &d.name
	}
	if !sameHost(a.LocalHost, d.target.host) {
		s.differ("local.host", a.LocalHost, d.target.host)
		patch.LocalHost = &d.target.host
	}
	if port := d.target.first + offset; a.LocalPort != port {
		s.differ("local.port", a.LocalPort, port)
		patch.LocalPort = &port
	}
	if d.enabled != nil && a.Enabled != *d.enabled {
		s.differ("enabled", a.Enabled, *d.enabled)
		patch.Enabled = d.enabled
	}
	if !maps.Equal(a.Labels, d.labels) {
		for _, key := range slices.Sorted(maps.Keys(union(a.Labels, d.labels))) {
			from, is := a.Labels[key]
			to, wanted := d.labels[key]
			if is != wanted || from != to {
				s.differ("labels."+key, present(from, is), present(to, wanted))
			}
		}
		patch.Labels = &d.labels
	}
	s.options(patch, optionsOf(a.Options))
}

// options compares options. Those that the file does not name are the defaults.
func (s *step) options(patch *types.AllocationPatch, have map[string]any) {
	want := defaultOptions()
	maps.Copy(want, s.want.options)
	changed := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(union(have, want))) {
		from, is := have[name]
		if !is {
			from = defaultOptions()[name] // The panel does not know the option yet.
		}
		if to := want[name]; !reflect.DeepEqual(from, to) {
			s.differ("options."+name, from, to)
			changed[name] = to
		}
	}
	if len(changed) > 0 {
		if options, err := toOptions(changed); err == nil { // Both sides come from there.
			patch.Options = &options
		}
	}
}

// defaultOptions are the options of an allocation that was created without any.
func defaultOptions() map[string]any {
	return map[string]any{
		"proxyProtocol":   string(types.ProxyProtocolNone),
		"udpIdleSeconds":  float64(types.DefaultAllocationOptionsUDPIdleSeconds),
		"playerAddresses": types.DefaultAllocationOptionsPlayerAddresses,
	}
}

func union[V any](a, b map[string]V) map[string]V {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]V{}
	}
	maps.Copy(all, b)
	return all
}

func present(value string, is bool) any {
	if !is {
		return nil
	}
	return value
}

// request returns the request that creates the tunnel.
func (d declared) request() (types.AllocationCreate, error) {
	options, err := toOptions(d.options)
	r := types.AllocationCreate{
		Protocol: d.protocol, Name: &d.name, LocalHost: &d.target.host, LocalPort: d.target.first,
		ServerID: d.server, Enabled: d.enabled, Labels: &d.labels, Options: &options,
	}
	if d.target.count > 1 {
		r.Count = &d.target.count
	}
	if d.port != 0 {
		r.Port = &d.port
	}
	return r, err
}

// overlaps reports whether a unit has a port that the tunnel asks for.
func (d declared) overlaps(unit []types.Allocation) bool {
	return d.port != 0 && slices.ContainsFunc(unit, func(a types.Allocation) bool {
		return a.Port >= d.port && a.Port < d.port+d.target.count && slices.Contains(protocolsOf(d.protocol), a.Protocol)
	})
}

// line describes a step for people.
func (s *step) line() string {
	where := ""
	if len(s.Allocations) > 0 {
		where = addressOf(s.Allocations)
	}
	switch s.Action {
	case actCreate:
		return fmt.Sprintf("+ %s: %s to %s", s.Name, s.want.protocol, targetText(s.want.target))
	case actDelete:
		return fmt.Sprintf("- %s: %s", s.Name, where)
	case actReplace:
		return fmt.Sprintf("-/+ %s: %s", s.Name, where)
	case actChange:
		return fmt.Sprintf("~ %s: %s", s.Name, where)
	}
	return fmt.Sprintf("= %s: %s", s.Name, where)
}

func targetText(t localTarget) string {
	return localAddress(types.Allocation{LocalHost: t.host, LocalPort: t.first}) + through(t.first, t.count-1)
}
