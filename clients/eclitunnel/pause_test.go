package main

import (
	"encoding/json"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

func TestPause_ClosesAPortForAWhile(t *testing.T) {
	p := newPanel(t)
	p.settle = types.AllocationListening
	m := enrolledAt(t, p)
	m.run("open", "tcp+udp", "1", "--public-port", "3000", "--name", "valheim").want(t, 0)
	m.run("open", "tcp", "25565", "--public-port", "3001").want(t, 0)
	m.run("open", "udp", "2456-2458", "--public-port", "4000").want(t, 0)

	m.run("pause", "valheim").want(t, 0, "paused tcp play.test:3000", "paused udp play.test:3000")
	m.run("list").want(t, 0, "paused", "listening")
	m.run("status").want(t, 0, "4 open, 4 listening, 2 paused")
	m.run("pause", "4001").want(t, 0, "play.test:4000", "play.test:4001", "play.test:4002")
	m.run("open", "tcp", "1").want(t, 12, "is paused", "eclitunnel resume")

	o := m.run("resume", "port:3000", "--json")
	o.want(t, 0)
	var resumed []types.Allocation
	if err := json.Unmarshal([]byte(o.stdout), &resumed); err != nil || len(resumed) != 2 || !resumed[0].Enabled || !resumed[1].Enabled {
		t.Errorf("printed %q: %v", o.stdout, err)
	}
	m.run("resume", "4000-4002").want(t, 0, "resumed udp play.test:4002")
	m.run("status").want(t, 0, "6 open, 6 listening")
	for _, command := range []string{"pause", "resume"} {
		m.run(command, "9").want(t, 11, "no such port")
		m.run(command, "--", "id:x").want(t, 2)
		m.run(command).want(t, 2)
	}
}
