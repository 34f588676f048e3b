//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

// device is a tunnel server or an agent with its game, on its machine.
type device struct {
	*cluster.Agent
	place   *place
	process *cluster.Process
	game    *traffic.Game // nil on a tunnel server.
	channel channelWatch
}

func (d *device) id() uuid.UUID { return d.Device.ID }

// start starts its process, which is another one than before.
func (d *device) start() error {
	d.channel.reset()
	process, err := d.Start()
	if err != nil {
		return err
	}
	d.process = process
	return nil
}

// setToken has the device act with another token from its next start.
func (d *device) setToken(token string) {
	const variable = "ECLITUNNEL_TOKEN="
	d.Env = slices.DeleteFunc(d.Env, func(s string) bool { return len(s) > len(variable) && s[:len(variable)] == variable })
	d.Env = append(d.Env, variable+token)
}

// close ends the process, and the game.
func (d *device) close() error {
	var err error
	if d.process != nil {
		err = d.process.Stop()
	}
	if d.game != nil {
		//nolint:errcheck // closing a listener and sockets
		d.game.Close()
	}
	return err
}

// channelWatch reads the events that a device prints (ECLITUNNEL_JSON) and knows
// from them whether its control channel is open.
type channelWatch struct {
	// copyTo, where not nil, is given everything too.
	copyTo io.Writer

	mu        sync.Mutex
	rest      []byte
	connected bool
	since     time.Time // Of the latest change.
}

func (c *channelWatch) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rest, c.connected, c.since = nil, false, time.Time{}
}

// Write takes what the device prints, its log included.
func (c *channelWatch) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rest = append(c.rest, b...)
	for {
		line, rest, ok := bytes.Cut(c.rest, []byte("\n"))
		if !ok {
			break
		}
		c.rest = rest
		var event struct {
			Type string `json:"type"`
		}
		if json.Unmarshal(line, &event) != nil {
			continue
		}
		switch event.Type {
		case "connected":
			c.connected, c.since = true, time.Now()
		case "disconnected", "switched_off", "stopped":
			if c.connected {
				c.since = time.Now()
			}
			c.connected = false
		}
	}
	if c.copyTo != nil {
		return c.copyTo.Write(b)
	}
	return len(b), nil
}

// state is whether the channel is open, and since when.
func (c *channelWatch) state() (connected bool, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connected, c.since
}
