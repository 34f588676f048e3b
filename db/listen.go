package db

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"
)

// listenTiming determines how fast a dead listener is detected and replaced.
type listenTiming struct {
	// ping is the interval between pings of the server.
	ping time.Duration
	// silence is the time without data after which the connection is closed. It is longer than two
	// pings, so that one slow response does not close it.
	silence time.Duration
	// reconnectMin and reconnectMax bound the back-off between attempts to connect. The latter also
	// bounds the time that a Listen takes to end while the server is down.
	reconnectMin, reconnectMax time.Duration
}

var defaultListenTiming = listenTiming{
	ping: 3 * time.Second, silence: 8 * time.Second,
	reconnectMin: 100 * time.Millisecond, reconnectMax: time.Second,
}

// maxPendingEvents bounds the queue of a slow reader. Beyond it, the queue becomes one event with All.
const maxPendingEvents = 10_000

// Event reports that the desired state of a device may have changed.
type Event struct {
	DeviceID uuid.UUID
	// Keys means that the signing keys, and no device, have changed.
	Keys bool
	// Servers means that the desired state of every tunnel server, and no other device, may have changed.
	Servers bool
	// All means that any device, the settings and the signing keys may have changed, for example
	// because the listener lost its connection. Read everything again.
	All bool
}

// Listen returns a channel of the changes that any replica makes from now on. The channel is closed
// after ctx ends. Its reader may be slow: pending events of the same device are merged. After a lost
// connection, Listen reconnects and sends an Event with All.
//
// Listen waits for its first connection, and returns ctx's error if ctx ends first.
func (d *DB) Listen(ctx context.Context) (<-chan Event, error) {
	listener, err := d.newListener(ctx, notifyChannel)
	if err != nil {
		return nil, err
	}
	events := make(chan Event)
	go func() {
		defer close(events)
		d.keepListener(ctx, listener, func() { forwardEvents(ctx, listener.Notify, events) })
	}()
	return events, nil
}

// newListener returns a listener that is connected and listens on a channel.
func (d *DB) newListener(ctx context.Context, channel string) (*pq.Listener, error) {
	listener := pq.NewDialListener(dialForListener(ctx, d.listen.silence), d.url,
		d.listen.reconnectMin, d.listen.reconnectMax, d.logListener(ctx))
	ready := make(chan struct{})
	var refused error
	go func() {
		defer close(ready)
		refused = listener.Listen(channel)
	}()
	select {
	case <-ready:
		if refused != nil {
			closeListener(listener)
			return nil, fmt.Errorf("listen: %w", refused)
		}
	case <-ctx.Done():
		closeListener(listener)
		<-ready
		return nil, fmt.Errorf("listen: %w", ctx.Err())
	}
	return listener, nil
}

// keepListener keeps a listener alive while forward runs, until ctx ends, and then closes it.
func (d *DB) keepListener(ctx context.Context, listener *pq.Listener, forward func()) {
	pinging := make(chan struct{})
	go func() {
		defer close(pinging)
		d.pingListener(ctx, listener)
	}()
	forward()
	closeListener(listener)
	<-pinging
}

// forwardEvents forwards notifications to events until ctx ends. It always receives the next
// notification, even if the reader of events is slow: a listener that cannot deliver notifications
// does not process ping responses either.
func forwardEvents(ctx context.Context, notifications <-chan *pq.Notification, events chan<- Event) {
	pending := pendingEvents{devices: make(map[uuid.UUID]struct{})}
	for {
		// A nil channel blocks, which disables the send if nothing is pending.
		var out chan<- Event
		next, ok := pending.peek()
		if ok {
			out = events
		}
		select {
		case <-ctx.Done():
			return
		case out <- next:
			pending.remove(next)
		case notification := <-notifications:
			if notification == nil {
				// pq sends nil after it has reconnected. Notifications in between are lost.
				pending.add(Event{All: true})
				continue
			}
			pending.add(parseEvent(notification.Extra))
		}
	}
}

// pendingEvents is the set of events that the reader has not received yet.
type pendingEvents struct {
	all     bool
	keys    bool
	servers bool
	devices map[uuid.UUID]struct{}
}

func (p *pendingEvents) add(event Event) {
	switch {
	case p.all: // It includes the event.
	case event.Keys:
		p.keys = true
	case event.Servers:
		p.servers = true
	case !event.All && len(p.devices) < maxPendingEvents:
		p.devices[event.DeviceID] = struct{}{}
	default:
		p.all, p.keys, p.servers = true, false, false
		clear(p.devices)
	}
}

func (p *pendingEvents) peek() (Event, bool) {
	if p.all {
		return Event{All: true}, true
	}
	if p.keys {
		return Event{Keys: true}, true
	}
	if p.servers {
		return Event{Servers: true}, true
	}
	for id := range p.devices {
		return Event{DeviceID: id}, true
	}
	return Event{}, false
}

func (p *pendingEvents) remove(event Event) {
	switch {
	case event.All:
		p.all = false
	case event.Keys:
		p.keys = false
	case event.Servers:
		p.servers = false
	default:
		delete(p.devices, event.DeviceID)
	}
}

// pingListener pings the server periodically, so that a live connection always receives data. It
// ignores errors, after which the listener reconnects.
func (d *DB) pingListener(ctx context.Context, listener *pq.Listener) {
	ticker := time.NewTicker(d.listen.ping)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_ = listener.Ping()
		}
	}
}

// closeListener closes a listener and waits for its goroutines.
func closeListener(listener *pq.Listener) {
	drained := make(chan struct{})
	// Close waits for a ping in progress, whose response is queued behind unread notifications.
	go func() {
		defer close(drained)
		for range listener.Notify {
		}
	}()
	_ = listener.Close()
	<-drained
}

func (d *DB) logListener(ctx context.Context) pq.EventCallbackType {
	return func(event pq.ListenerEventType, err error) {
		switch {
		case ctx.Err() != nil:
		case event == pq.ListenerEventDisconnected:
			d.logger.WarnContext(ctx, "database listener lost", slog.Any("error", err))
		case event == pq.ListenerEventReconnected:
			d.logger.InfoContext(ctx, "database listener is back")
		case event == pq.ListenerEventConnectionAttemptFailed:
			d.logger.DebugContext(ctx, "database listener cannot connect", slog.Any("error", err))
		}
	}
}

// listenDial implements pq.Dialer. It ignores the timeout, because connectTimeout is at most as long.
type listenDial func(network, address string) (net.Conn, error)

func (dial listenDial) Dial(network, address string) (net.Conn, error) { return dial(network, address) }

func (dial listenDial) DialTimeout(network, address string, _ time.Duration) (net.Conn, error) {
	return dial(network, address)
}

// dialForListener returns a dialer whose connections close when ctx ends and fail after silence.
func dialForListener(ctx context.Context, silence time.Duration) listenDial {
	return func(network, address string) (net.Conn, error) {
		conn, err := dialer{}.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		// Without this, ending would have to wait for the response to a ping.
		release := context.AfterFunc(ctx, func() { _ = conn.Close() })
		return &listenConn{Conn: conn, silence: silence, release: release}, nil
	}
}

// listenConn is a connection that fails if it receives nothing for some time. It detects even a peer
// whose kernel still responds while its process does not.
type listenConn struct {
	net.Conn
	silence time.Duration
	release func() bool
}

func (c *listenConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.silence)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *listenConn) Close() error {
	c.release()
	return c.Conn.Close()
}
