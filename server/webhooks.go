package server

import (
	"context"
	"fmt"
	"log/slog"
)

// encryptWebhooks stores the secrets of webhooks as the secret keys say.
func (s *Server) encryptWebhooks(ctx context.Context) error {
	lost, err := s.db.EncryptWebhooks(ctx)
	if err != nil {
		return fmt.Errorf("secrets of webhooks: %w", err)
	}
	if lost > 0 {
		s.logger.WarnContext(ctx, "webhooks disabled whose secrets are encrypted with a key that the panel does not have", slog.Int("count", lost))
	}
	return nil
}
