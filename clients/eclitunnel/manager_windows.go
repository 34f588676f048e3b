package main

import (
	"context"
	"os"

	"github.com/kardianos/service"
)

// underManager calls run, and answers the service manager of Windows where that has
// started this program.
func underManager(ctx context.Context, run func(context.Context) error) error {
	if service.Interactive() {
		return run(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &managed{run: func() error { return run(ctx) }, cancel: cancel, ended: make(chan error, 1)}
	svc, err := service.New(p, &service.Config{Name: serviceName})
	if err != nil {
		return err
	}
	if err := svc.Run(); err != nil {
		return err
	}
	return p.err
}

// managed is the agent as the service manager knows it.
type managed struct {
	run    func() error
	cancel context.CancelFunc
	ended  chan error
	err    error // What run returned after a Stop.
}

// Start implements service.Interface.
func (m *managed) Start(service.Service) error {
	go func() {
		err := m.run()
		select {
		case m.ended <- err:
		default:
		}
		if err != nil {
			// The manager restarts a service whose process has ended without being told to.
			os.Exit(exitCode(err))
		}
	}()
	return nil
}

// Stop implements service.Interface.
func (m *managed) Stop(service.Service) error {
	m.cancel()
	m.err = <-m.ended
	return nil
}
