package main

import (
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

func TestClose_ByName(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	open := func(protocol, port, name string) {
		t.Helper()
		m.run("open", protocol, "1", "--public-port", port, "--name", name).want(t, 0)
	}
	open("tcp+udp", "3000", "valheim") // ids 1 and 2
	open("tcp", "3001", "survival: 1") // id 3
	open("tcp", "3002", "3001")        // id 4
	open("tcp", "3003", "twice")
	open("tcp", "3004", "twice")
	open("tcp", "3005", "2024-2025")
	m.run("close", "2024-2025").want(t, 0, "play.test:3005")
	m.run("close", "2024-2025").want(t, 11, "no such port")
	m.run("close", "port:2024-2025").want(t, 11, "no such port")
	m.run("close", "3001").want(t, 2, "port:3001", "name:3001")
	m.run("close", "twice").want(t, 2, "use the ID")
	m.run("close", "name:3001").want(t, 0, "play.test:3002")
	m.run("close", "survival: 1").want(t, 0, "play.test:3001")
	m.run("close", "valheim").want(t, 0, "tcp play.test:3000", "udp play.test:3000")
	m.run("close", "Valheim").want(t, 11, "no such port")
	m.run("list").want(t, 0, "play.test:3003", "play.test:3004")
}

func TestCommands_NameWhatThePanelCannotAccept(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	for _, protocol := range []string{"udp", "tcp+udp"} {
		m.run("open", protocol, "1", "--proxy-protocol", "v1").want(t, 2, "v1", "v2")
	}
	m.run("open", "tcp", "1", "--proxy-protocol", "v1").want(t, 0)
	refused := refusal(400, types.CodeInvalidRequest)
	p.refuse = &refused
	m.run("open", "tcp", "1", "--new", "--name", "a name that only the panel knows to be wrong").want(t, 2, "invalid_request")
	m.run("enroll", "--force", "--panel", p.URL, "--name", "another").want(t, 2, "invalid_request")
}
