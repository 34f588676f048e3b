package main

import (
	"strings"
	"testing"
)

func TestApply_SaysWhereAFileIsWrong(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	for text, words := range map[string]string{
		"":            "is empty",
		"tunnels: {}": "",
		"ports: {}":   `:1: unknown key "ports"; known here: tunnels`,
		"{}":          "no key tunnels",
		"tunnels: []": ":1: tunnels must be a mapping",
		"tunnels: {a: {protocol: tcp, local: 1}}\n---\ntunnels: {}":                          "more than one document",
		"tunnels:\n  a: {protocol: tcp, local: 1}\n  a: {protocol: udp, local: 1}":           `:3: the key "a" is in line 2 already`,
		"tunnels:\n  a:\n    protocol: tcp\n    locla: 1":                                    `:4: unknown key "locla"; known here: protocol, local`,
		"tunnels:\n  a:\n    protocol: tcp\n    local: 1\n    local: 2":                      `:5: the key "local" is in line 4 already`,
		"tunnels:\n  a:\n    protocol: icmp\n    local: 1":                                   ":3: protocol must be tcp, udp or tcp+udp",
		"tunnels:\n  a:\n    local: 1":                                                       ":2: a has no protocol",
		"tunnels:\n  a:\n    protocol: tcp":                                                  ":2: a has no local port",
		"tunnels:\n  a: {protocol: tcp, local: 2458-2456}":                                   "reversed",
		"tunnels:\n  a: {protocol: tcp, local: [::1]:25565}":                                 "did not find expected node content",
		"tunnels:\n  a:\n    protocol: tcp\n    local: [1]":                                  "in quotes",
		"tunnels:\n  a: {protocol: tcp, local: 70000}":                                       "between 1 and 65535",
		"tunnels:\n  a: {protocol: tcp, local: 1-3, publicPort: 65534}":                      "between 1 and 65533",
		"tunnels:\n  a: {protocol: tcp, local: 1, publicPort: many}":                         `"many" is not a port`,
		"tunnels:\n  a: {protocol: tcp, local: 1, server: fra1}":                             `"fra1" is not the id of a tunnel server`,
		"tunnels:\n  a: {protocol: tcp, local: 1, enabled: maybe}":                           "true or false",
		"tunnels:\n  a: {protocol: tcp, local: 1, labels: [x]}":                              "labels must be a mapping",
		"tunnels:\n  a: {protocol: tcp, local: 1, labels: {managed-by: me}}":                 "that of apply itself",
		"tunnels:\n  a:\n    protocol: tcp\n    local: 1\n    options:\n      maxPlayer: 1":  ":6: unknown key \"maxPlayer\"; known here: allow,",
		"tunnels:\n  a:\n    protocol: tcp\n    local: 1\n    options:\n      maxPlayers: x": ":6: maxPlayers has a value of the wrong type",
		"tunnels:\n  a: {protocol: udp, local: 1, options: {proxyProtocol: v1}}":             "use v2",
		"tunnels:\n  '': {protocol: udp, local: 1}":                                          "needs a name",
		"tunnels:\n  a: *b":    "unknown anchor",
		"tunnels: &a\n  a: *a": "",
		"\x00":                 "control characters",
		"tunnels:\n" + strings.Repeat("#", maxApplyFile): "larger than",
	} {
		o := m.run("apply", "-f", m.file(text))
		switch {
		case words == "" && strings.Contains(text, "*a"): // It is no tunnel, and ends.
			o.want(t, 2)
		case words == "":
			o.want(t, 0, "has no tunnels")
		default:
			o.want(t, 2, words)
		}
	}
	m.run("apply", "-f", m.file("x")+".missing").want(t, 2, "no such file")
	m.run("apply").want(t, 2, "--file")
	m.stdin = "{\n\t\"tunnels\": {\"a\": {\"protocol\": \"tcp\",\t\"local\": 5}}}\n"
	m.run("apply", "-f", "-").want(t, 0, "1 created")
	if len(p.allocations) != 1 {
		t.Errorf("opened %+v", p.allocations)
	}
}
