# Build with everything, run with what production needs: no compiler, no embedded Postgres, an ordinary user.
FROM node:24-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY src src
RUN npm run build && npm prune --omit=dev --no-audit --no-fund

FROM node:24-slim
WORKDIR /app
ENV NODE_ENV=production HOST=0.0.0.0 PORT=4000
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY package.json ./
COPY sql sql
# Where `node dist/access/keys.js` keeps the hashes of keys; mount it, or put what it prints into API_KEYS.
RUN mkdir .data && chown node .data
USER node
EXPOSE 4000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["node", "-e", "fetch('http://127.0.0.1:' + process.env.PORT + '/health/ready').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# Room for the young: what thousands of payments in flight allocate dies there (docs/performance.md).
CMD ["node", "--enable-source-maps", "--max-semi-space-size=32", "dist/main.js"]
