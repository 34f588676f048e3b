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

// listenTiming says how fast a dead listener is found and replaced.
type listenTiming struct {
	// ping is how often the server is made to answer.
	ping time.Duration
	// silence is how long it may say nothing; more than two pings, so that one slow answer is no death.
	silence time.Duration
	// reconnectMin and reconnectMax bound the back-off between attempts to connect. The latter is
	// also how long the end of a Listen may take while the server is away.
	reconnectMin, reconnectMax time.Duration
}

var defaultListenTiming = listenTiming{
	ping: 3 * time.Second, silence: 8 * time.Second,
	reconnectMin: 100 * time.Millisecond, reconnectMax: time.Second,
}

// maxPendingEvents bounds what a slow reader makes the listener remember. Beyond it, the reader is
// told that everything changed.
const maxPendingEvents = 10_000

// Event says that the desired state of a device may have changed.
type Event struct {
	DeviceID uuid.UUID
	// Keys means the signing keys, and no device.
	Keys bool
	// All means any device, the settings and the signing keys: they changed, or the listener was
	// lost for a while and nobody knows what did. Read everything again.
	All bool
}

// Listen reports changes made by any replica from the time it returns, until ctx ends; then the
// channel closes. A reader may be slow: events of one device that wait for it become one. After a
// lost connection Listen comes back by itself and sends an Event with All.
//
// It waits for its first connection, and returns ctx's error if that ends first.
func (d *DB) Listen(ctx context.Context) (<-chan Event, error) {
	listener := pq.NewDialListener(dialForListener(ctx, d.listen.silence), d.url,
		d.listen.reconnectMin, d.listen.reconnectMax, d.logListener(ctx))
	ready := make(chan struct{})
	var refused error
	go func() {
		defer close(ready)
		refused = listener.Listen(notifyChannel)
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

	events := make(chan Event)
	go func() {
		defer close(events)
		pinging := make(chan struct{})
		go func() {
			defer close(pinging)
			d.pingListener(ctx, listener)
		}()
		relayEvents(ctx, listener.Notify, events)
		closeListener(listener)
		<-pinging
	}()
	return events, nil
}

// relayEvents hands notifications to events until ctx ends. It always takes the next notification,
// however slow the reader of events is: a listener that cannot deliver stops answering pings.
func relayEvents(ctx context.Context, notifications <-chan *pq.Notification, events chan<- Event) {
	pending := pendingEvents{devices: make(map[uuid.UUID]struct{})}
	for {
		// A nil channel blocks, so with nothing pending only the other cases can run.
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
				// pq says so after a reconnect: what was notified meanwhile is lost.
				pending.add(Event{All: true})
				continue
			}
			pending.add(parseEvent(notification.Extra))
		}
	}
}

// pendingEvents are the events the reader has not taken yet, each once.
type pendingEvents struct {
	all     bool
	keys    bool
	devices map[uuid.UUID]struct{}
}

func (p *pendingEvents) add(event Event) {
	switch {
	case p.all: // That includes it.
	case event.Keys:
		p.keys = true
	case !event.All && len(p.devices) < maxPendingEvents:
		p.devices[event.DeviceID] = struct{}{}
	default:
		p.all, p.keys = true, false
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
	default:
		delete(p.devices, event.DeviceID)
	}
}

// pingListener makes the server speak, so that its silence is a sign. A ping that fails needs no
// handling: the listener has lost its connection then, and connects again.
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

// closeListener ends a listener and waits for its goroutines.
func closeListener(listener *pq.Listener) {
	drained := make(chan struct{})
	// Close waits for a ping under way, whose answer waits behind notifications nobody has taken.
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

// listenDial is a pq.Dialer. A timeout it is given is ignored: connectTimeout is shorter or meant
// the same.
type listenDial func(network, address string) (net.Conn, error)

func (dial listenDial) Dial(network, address string) (net.Conn, error) { return dial(network, address) }

func (dial listenDial) DialTimeout(network, address string, _ time.Duration) (net.Conn, error) {
	return dial(network, address)
}

// dialForListener makes connections that end with ctx and fail after silence.
func dialForListener(ctx context.Context, silence time.Duration) listenDial {
	return func(network, address string) (net.Conn, error) {
		conn, err := dialer{}.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		// Without this the end of ctx would wait for the answer to a ping.
		release := context.AfterFunc(ctx, func() { _ = conn.Close() })
		return &listenConn{Conn: conn, silence: silence, release: release}, nil
	}
}

// listenConn is a connection that fails once its peer has been silent for too long. That finds even
// a peer whose kernel still answers while the process behind it does not.
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
