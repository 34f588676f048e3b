package handler_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

func TestLabels_AreGivenReplacedAndAudited(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "admin@example.com", "admin"), p.user(t, "ada@example.com", "user")
	p.server(t, 20010)
	device, agent := p.device(t, ada, admin, types.DeviceKindClient)
	created := decode[types.AllocationCreated](t, agent.send(t, "POST", allocations,
		`{"protocol":"tcp+udp","localPort":2456,"count":2,"labels":{"game":"valheim","eclitunnel.example/set":""}}`), 201)
	if len(created.Allocations) != 4 || len(created.Labels) != 2 {
		t.Fatalf("created %+v", created)
	}
	for _, a := range created.Allocations {
		if !maps.Equal(a.Labels, types.Labels{"game": "valheim", "eclitunnel.example/set": ""}) {
			t.Errorf("created with %v", a.Labels)
		}
	}
	path := fmt.Sprintf("%s/%d", allocations, created.ID)
	before := ada.send(t, "GET", path, nil)
	updated := decode[types.Allocation](t, ada.send(t, "PATCH", path, `{"labels":{"game":"Valheim  2"}}`, "If-Match", before.header.Get("ETag")), 200)
	if !maps.Equal(updated.Labels, types.Labels{"game": "Valheim  2"}) {
		t.Errorf("updated to %v", updated.Labels)
	}
	decode[types.Problem](t, ada.send(t, "PATCH", path, `{"labels":{}}`, "If-Match", before.header.Get("ETag")), 412)
	if now := decode[types.AllocationDetail](t, ada.send(t, "PATCH", path, `{"name":"x"}`), 200); len(now.Labels) != 1 {
		t.Errorf("another change left %v", now.Labels)
	}
	if now := decode[types.Allocation](t, ada.send(t, "PATCH", path, `{"labels":{}}`), 200); now.Labels == nil || len(now.Labels) != 0 {
		t.Errorf("removed: %v", now.Labels)
	}
	entries := decode[[]types.AuditEntry](t, ada.send(t, "GET", "/api/audit?action=allocation.update&target=allocation:"+fmt.Sprint(created.ID), nil), 200)
	changes, err := json.Marshal(entries[len(entries)-1].Changes)
	if err != nil || string(changes) != `{"labels":[{"eclitunnel.example/set":"","game":"valheim"},{"game":"Valheim  2"}]}` {
		t.Errorf("the audit trail has %s (%v)", changes, err)
	}
	plain := decode[types.AllocationCreated](t, ada.send(t, "POST", allocations, map[string]any{"deviceId": device.ID, "protocol": "tcp", "localPort": 1}), 201)
	if plain.Labels == nil || len(plain.Labels) != 0 {
		t.Errorf("without labels: %v", plain.Labels)
	}
}

func TestLabels_ThatAreInvalid(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "admin@example.com", "admin"), p.user(t, "ada@example.com", "user")
	p.server(t, 20010)
	_, agent := p.device(t, ada, admin, types.DeviceKindClient)
	allocation := decode[types.AllocationCreated](t, agent.send(t, "POST", allocations, `{"protocol":"tcp","localPort":1}`), 201)
	many := map[string]string{}
	for i := range 17 {
		many[fmt.Sprint("k", i)] = "v"
	}
	for name, c := range map[string]struct {
		labels any
		words  string
	}{
		"an empty key":            {map[string]string{"": "x"}, "a key has"},
		"capitals":                {map[string]string{"Game": "x"}, "a key has"},
		"a hyphen at the end":     {map[string]string{"game-": "x"}, "a key has"},
		"a key of 64 characters":  {map[string]string{strings.Repeat("k", 64): "x"}, "a key has"},
		"an equals sign":          {map[string]string{"game=x": "x"}, "a key has"},
		"a value of 129 letters":  {map[string]string{"game": strings.Repeat("ä", 129)}, "128"},
		"a line break":            {map[string]string{"game": "a\nb"}, "line breaks"},
		"17 labels":               {many, "16"},
		"a number":                {map[string]any{"game": 5}, "string"},
		"null in place of labels": {nil, "labels"},
	} {
		for _, request := range [][2]string{{"POST", allocations}, {"PATCH", fmt.Sprintf("%s/%d", allocations, allocation.ID)}} {
			body := map[string]any{"labels": c.labels}
			if request[0] == "POST" {
				body["protocol"], body["localPort"] = "tcp", 2
			}
			refused := agent.send(t, request[0], request[1], body)
			problem := decode[types.Problem](t, refused, 400)
			text, _ := json.Marshal(problem)
			if problem.Error != types.CodeInvalidRequest || !strings.Contains(string(text), c.words) {
				t.Errorf("%s of %s: %s", request[0], name, text)
			}
		}
	}
	for _, filter := range []string{"label=", "label=Game", "label=%3Dx", "label=game%3Da%0Ab", strings.Repeat("&label=x", 17)[1:]} {
		decode[types.Problem](t, agent.send(t, "GET", allocations+"?"+filter, nil), 400)
	}
	longest := map[string]string{strings.Repeat("k", 63): strings.Repeat("ä", 128), "0": ""}
	decode[types.Allocation](t, agent.send(t, "PATCH", fmt.Sprintf("%s/%d", allocations, allocation.ID), map[string]any{"labels": longest}), 200)
	for key, value := range longest {
		query := allocations + "?label=" + key + "%3D" + value
		if found := decode[[]types.Allocation](t, agent.send(t, "GET", query, nil), 200); len(found) != 1 {
			t.Errorf("%s found %v", query, found)
		}
	}
}
