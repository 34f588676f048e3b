package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

func labelsOf(labels *types.Labels) types.Labels {
	if labels == nil {
		return types.Labels{}
	}
	return *labels
}

// labelled returns the allocations that match all of some filters, as the panel does.
func labelled(allocations []types.Allocation, filters []string) []types.Allocation {
	return slices.DeleteFunc(slices.Clone(allocations), func(a types.Allocation) bool {
		return slices.ContainsFunc(filters, func(filter string) bool {
			key, wanted, exact := strings.Cut(filter, "=")
			value, found := a.Labels[key]
			return !found || exact && value != wanted
		})
	})
}

func TestLabels_AreGivenByOpenAndFoundByList(t *testing.T) {
	m := enrolledAt(t, newPanel(t))
	run := m.open("udp", "2456-2457", "--label", "game=valheim", "--label", "note=a;b=c, d")
	for _, o := range run {
		if !maps.Equal(o.Labels, types.Labels{"game": "valheim", "note": "a;b=c, d"}) {
			t.Errorf("opened with %v", o.Labels)
		}
	}
	m.open("tcp", "25565", "--label", "game=minecraft")
	m.open("tcp", "8080")
	for args, want := range map[string]int{
		"--label game": 3, "--label game=valheim": 2, "--label game --label note": 2, "--label other": 0, "": 4,
	} {
		o := m.run(append([]string{"list", "--json"}, strings.Fields(args)...)...)
		o.want(t, 0)
		var listed []types.Allocation
		if err := json.Unmarshal([]byte(o.stdout), &listed); err != nil || listed == nil || len(listed) != want {
			t.Errorf("%s: printed %s (%v)", args, o.stdout, err)
		}
	}
	m.run("list", "--label", "other").want(t, 0, "No port has these labels")
	m.run("open", "tcp", "25565", "--label", "game=minecraft").want(t, 0, "open already")
	if again := m.open("tcp", "25565", "--label", "game=other"); again[0].ID != 5 {
		t.Errorf("another label got %+v", again)
	}
	m.run("open", "tcp", "1", "--label", "game").want(t, 2, "game")
}
