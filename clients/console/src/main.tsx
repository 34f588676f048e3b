import './styles/tokens.css';
import './styles/base.css';
import './ui/ui.css';
import './shell/shell.css';
import { CSPProvider } from '@base-ui/react/csp-provider';
import { QueryClientProvider } from '@tanstack/react-query';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { App } from './app.js';
import { queryClient } from './lib/client.js';
import { LanguageProvider } from './lib/language.js';
import { applyTheme } from './lib/theme.js';
import { reloadAfterUpgrade } from './shell/reload.js';
import { NoticesProvider } from './ui/index.js';

applyTheme();
reloadAfterUpgrade();

const root = document.getElementById('root');
if (!root) throw new Error('index.html has no root');
createRoot(root).render(
  <StrictMode>
    <CSPProvider disableStyleElements>
      <QueryClientProvider client={queryClient}>
        <LanguageProvider>
          <NoticesProvider>
            <App />
          </NoticesProvider>
        </LanguageProvider>
      </QueryClientProvider>
    </CSPProvider>
  </StrictMode>,
);
