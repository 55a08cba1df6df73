import { context, diag, DiagLogLevel, propagation, trace } from '@opentelemetry/api'
import type { BasicTracerProvider, SpanExporter, SpanProcessor } from '@opentelemetry/sdk-trace-base'
import type { Logger } from 'pino'
import { tracing } from './span.ts'
import { VERSION } from './version.ts'

/**
 * Starts sending traces when the environment says so in OpenTelemetry's own words, which its libraries read themselves:
 * OTEL_EXPORTER_OTLP_ENDPOINT (or _TRACES_ENDPOINT), OTEL_TRACES_EXPORTER, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME and so
 * on. Without them none of it is loaded. The caller's `traceparent` is taken up; nobody is given one: the bank has no
 * use for it, and would learn which of its requests belong together.
 */
export async function startTracing(env: NodeJS.ProcessEnv, log: Logger): Promise<{ stop(): Promise<void> }> {
  const exporters = await exportersOf(env, log)
  if (exporters.length === 0) return { stop: async () => {} }
  const { BatchSpanProcessor } = await import('@opentelemetry/sdk-trace-base')
  diag.setLogger(reportOnceAMinute(log), { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true })
  const provider = await install(exporters.map((exporter) => new BatchSpanProcessor(exporter)))
  return { stop: () => flushed(provider.shutdown()) }
}

/** From here on spans are what they say, and find their parents. */
export async function install(spanProcessors: SpanProcessor[]): Promise<BasicTracerProvider> {
  const [{ BasicTracerProvider }, { AsyncLocalStorageContextManager }, core, resources] = await Promise.all([
    import('@opentelemetry/sdk-trace-base'),
    import('@opentelemetry/context-async-hooks'),
    import('@opentelemetry/core'),
    import('@opentelemetry/resources'),
  ])
  const resource = resources
    .defaultResource()
    .merge(
      resources.resourceFromAttributes({
        'service.name': 'ficmart-payment-gateway',
        'service.version': VERSION,
      }),
    )
    .merge(resources.detectResources({ detectors: [resources.envDetector] }))
  const provider = new BasicTracerProvider({ resource, spanProcessors })
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  propagation.setGlobalPropagator(new core.W3CTraceContextPropagator())
  trace.setGlobalTracerProvider(provider)
  tracing.isOn = true
  return provider
}

async function exportersOf(env: NodeJS.ProcessEnv, log: Logger): Promise<SpanExporter[]> {
  if (env['OTEL_SDK_DISABLED']?.toLowerCase() === 'true') return []
  const endpoint = env['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'] ?? env['OTEL_EXPORTER_OTLP_ENDPOINT'] ?? ''
  const wanted = env['OTEL_TRACES_EXPORTER'] ?? (endpoint === '' ? '' : 'otlp')
  const exporters: SpanExporter[] = []
  for (const name of wanted.split(',').map((part) => part.trim())) {
    switch (name) {
      case '':
      case 'none':
        break
      case 'otlp': {
        const { OTLPTraceExporter } = await import('@opentelemetry/exporter-trace-otlp-proto')
        exporters.push(new OTLPTraceExporter())
        break
      }
      case 'console': {
        const { ConsoleSpanExporter } = await import('@opentelemetry/sdk-trace-base')
        exporters.push(new ConsoleSpanExporter())
        break
      }
      default:
        log.warn({ exporter: name }, 'OTEL_TRACES_EXPORTER: known are otlp (http/protobuf), console and none')
    }
  }
  return exporters
}

/** A collector that is away fails every batch. */
function reportOnceAMinute(log: Logger) {
  let silentUntilMs = 0
  const report = (message: string) => {
    if (performance.now() < silentUntilMs) return
    silentUntilMs = performance.now() + 60_000
    log.warn({ opentelemetry: message.slice(0, 500) }, 'traces may be missing; payments are not affected')
  }
  const ignore = () => {}
  return { error: report, warn: report, info: ignore, debug: ignore, verbose: ignore }
}

/** What is left gets out, if the collector takes it: nobody waits long for traces. */
async function flushed(shutdown: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, FLUSH_MS)
  })
  await Promise.race([shutdown.catch(() => {}), late])
  clearTimeout(timer)
}

const FLUSH_MS = 2_000
